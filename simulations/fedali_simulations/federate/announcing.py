"""What a person should know before trainings over devices begin: how many they are, and on whose data."""

from __future__ import annotations

from pathlib import Path

from fedali.wire.kit import OperatorKit
from fedali_server.run.folder import RunFolder
from fedali_simulations.data import load
from fedali_simulations.scenario import Scenario
from fedali_simulations.study import jobs_of, scenario_of

_SHOWN = 8  # names in a line


def announcement(folder: Path, kit: OperatorKit) -> list[str]:
    """Lines about the runs that are prepared in ``folder``: how many trainings; which of the scenario's clients are no devices of ``kit``.

    The second while nothing was exported yet: the scenario's data are here then. Nothing of a run that goes on from a bundle.
    """
    if not (folder / "scenario.toml").exists():
        return []
    scenario = scenario_of(folder)
    jobs = [RunFolder(job.folder) for job in jobs_of(scenario, folder)]
    left = sum(not job.done for job in jobs)
    lines = [_trainings(scenario, left, len(jobs))] if left and len(jobs) > 1 else []
    if scenario.data.schema is None and not any((job.path / "run.json").exists() for job in jobs):
        lines += _strangers(scenario, kit)
    return lines


def _trainings(scenario: Scenario, left: int, all_: int) -> str:
    methods, seeds = len(scenario.methods), scenario.seeds
    what = f"{methods} method{'s' * (methods > 1)} x {seeds} seed{'s' * (seeds > 1)}"
    done = f", {all_ - left} of them complete" if left < all_ else ""
    return (
        f"{all_} trainings of {scenario.training.rounds} rounds, one after another: {what}{done}. Exporting a method takes up to a minute, "
        f"another seed of it a second. For one training alone: --set methods={scenario.methods[0].title} --set seeds=1"
    )


def _strangers(scenario: Scenario, kit: OperatorKit) -> list[str]:
    _, federation = load(scenario, scenario.seed)
    names, devices = [client.name for client in federation.clients], {device.name for device in kit.devices}
    strangers = [name for name in names if name not in devices]
    if not strangers:
        return []
    more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
    return [
        f"the {len(devices)} devices train on their own data; the scenario's give the model its shape, classes and normalisation. "
        f"{len(strangers)} of its {len(names)} clients are no device and train nowhere: {', '.join(strangers[:_SHOWN])}{more}"
    ]
