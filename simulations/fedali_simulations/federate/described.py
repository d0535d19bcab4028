"""What a federation knows of its data where none are: a schema, and statistics of round 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedali.bundle.manifest import BundleNormalisation
from fedali.data.facts import DataFacts, real_names
from fedali.data.normalisation import channel_shape, constant_note
from fedali.errors import SettingsError
from fedali.schema import Schema
from fedali.wire.kit import OperatorKit
from fedali_server.run.federated import Operator, RunSettings
from fedali_server.run.statistics import RoundZero
from fedali_simulations.federate.exporting import Described, export_untrained
from fedali_simulations.jobs import Job


def describe(
    schema: Schema,
    job: Job,
    folder: Path,
    settings: RunSettings,
    kit: OperatorKit,
    operator: Operator,
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> Described:
    """The data of a study whose round 0 is in ``folder``, by its schema, with statistics of round 0 where clients share a normalisation.

    ``settings`` are those of round 0, ``job`` any of the study's. Raises what ``RoundZero.gather`` does.
    """
    kind = job.scenario.split.normalise
    if kind != "global":  # each client has its own, or none
        return _described(schema, _without(schema, kind == "client"))
    zero = RoundZero(folder)
    if not zero.done and not zero.bundle.exists():
        say("exporting what data have to fit ...")
        export_untrained(
            job.scenario,
            job.line,
            job.seed,
            zero.bundle,
            key=kit.signing_key,
            name=f"{job.scenario.name} round 0",
            described=_described(schema, _without(schema)),
        )
    if not zero.done:
        say("round 0: the devices add up their training data, for the normalisation ...")
    found = zero.gather(settings, operator, meanwhile, say)
    say(str(found))
    for note in constant_note([schema.channels[k] for k in found.sums.constant()]):
        say(note)
    shared = found.sums.normalisation(schema.shape)
    constant = tuple(found.sums.constant())
    return _described(schema, BundleNormalisation("global", shared.mean, shared.std), constant)


def _described(
    schema: Schema, normalisation: BundleNormalisation, constant: tuple[int, ...] = ()
) -> Described:
    if schema.dtype != "float32":
        raise SettingsError(
            f"{schema.name}: samples are ids of tokens, and bundles are for measurements: simulate instead"
        )
    interval = None if schema.rate is None or schema.window is None else 1 / schema.rate
    data = DataFacts(channels=real_names(schema.channels), interval=interval, constant=constant)
    return Described(schema.shape, schema.classes, normalisation, data)


def _without(schema: Schema, own: bool = False) -> BundleNormalisation:
    """Samples as they are; with ``own``, until a client has its own normalisation."""
    shape = channel_shape(schema.shape)
    return BundleNormalisation(
        "client" if own else "none", np.zeros(shape, np.float32), np.ones(shape, np.float32)
    )
