"""What a scenario says of who trains, beside its data and where it is run."""

from __future__ import annotations

from collections.abc import Sequence

from fedali.cohort.sampling.sampler import availability_of
from fedali.errors import SettingsError
from fedali_simulations.sampling_settings import SamplingSettings
from fedali_simulations.scenario import Scenario


def check_who_trains(scenario: Scenario, names: Sequence[str], *, remote: bool) -> None:
    """Find faults before a run has a folder; ``names`` are those of its clients, who may be on other machines (``remote``).

    Raises ``SettingsError``, and ``DataError`` for a trace that cannot be read.
    """
    size, unseen = scenario.buffered.size, scenario.evaluation.unseen_clients
    if scenario.training.mode == "buffered":
        if remote:
            raise SettingsError(
                "training.mode = 'buffered' has one clock for all clients: run it without --superlink"
            )
        if size > len(names) - unseen:
            raise SettingsError(
                f"buffered.size is {size}, and {len(names) - unseen} clients train: a step could never be made. Set a smaller one"
            )
    if remote and scenario.sampling.trace is not None:
        raise SettingsError(
            f"sampling.availability is {scenario.sampling.trace}, and sites on other machines do not have it: "
            "take day-night, or run without --superlink"
        )
    availability_of(scenario.sampling.build(), scenario.seed, names)


def check_for_devices(scenario: Scenario) -> None:
    """Raise ``SettingsError`` for what simulations alone can do: real devices come and go by themselves."""
    mode = scenario.training.mode
    if mode != "rounds":
        raise SettingsError(
            f"training.mode = {mode!r} is for fedali simulate: over devices a round closes when a --quorum has answered; leave it away"
        )
    if scenario.sampling != SamplingSettings():
        raise SettingsError(
            "[sampling] is for fedali simulate: over devices whoever is there trains, see --quorum; leave it away"
        )
