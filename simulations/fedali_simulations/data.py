"""From a scenario's settings to clients with their data."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedali import data
from fedali.data.sources.named import SOURCES as SOURCES
from fedali.data.sources.named import load_named
from fedali.data.sources.reading import Columns, Reading
from fedali.errors import CheckpointError, DataError, SettingsError
from fedali.support.files import write_text
from fedali.support.places import user_path
from fedali_simulations.scenario import DataSettings, Scenario

_PARTITION, _UNSEEN = 10, 11  # what a random stream is for


def load_federation(scenario: Scenario, seed: int) -> data.Federation:
    """Clients with their data, for one seed; the same for every method."""
    return load(scenario, seed)[1]


def load(scenario: Scenario, seed: int) -> tuple[data.Dataset, data.Federation]:
    """What the data's source holds, and the clients that are made of it."""
    try:
        dataset = load_dataset(scenario, seed)
    except DataError as error:
        source = str(scenario.data.source)
        if not user_path(source).exists():
            raise
        source = min(source, os.path.relpath(source), key=len)
        raise DataError(f"{error}. What FedAli makes of it: fedali data {shlex.quote(source)}") from error
    return dataset, federation_of(scenario, dataset, seed)


def federation_of(scenario: Scenario, dataset: data.Dataset, seed: int) -> data.Federation:
    """The clients that are made of what the data's source holds."""
    partition = _partition(scenario, dataset, random_stream(seed, _PARTITION))
    split = scenario.split
    shift = None if scenario.shift.kind is None else (scenario.shift.kind, scenario.shift.severity)
    return data.build_federation(
        dataset,
        partition=partition,
        fractions=(split.train, split.validation, split.test),
        order=split.order,
        normalise=split.normalise,
        shift=shift,
        seed=seed,
        held_out=unseen_clients(scenario, len(partition.assignments), seed),
        measured_on=scenario.evaluation.on,
    )


def check_facts(folder: Path, dataset: data.Dataset, *, note: bool = True) -> None:
    """Compare a run's data with what was noted when it began; where nothing was, ``note`` what they are.

    Raises ``DataError`` that says what has changed: a run that went on with other data would give each client's model to somebody
    else, or mean other classes.
    """
    found, path = _facts(dataset), folder / "data.json"
    if not path.exists():
        if note:
            write_text(path, json.dumps(found, indent=1))
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    for name, now in found.items():
        if before.get(name) != now:
            was = "" if name == "sha256" else f": {_short(before.get(name))} before, {_short(now)} now"
            what = "samples or labels" if name == "sha256" else name
            raise DataError(
                f"the data are not those that {folder} was started with, its {what} have changed{was}. "
                "Bring the old data back, or start anew with another --out"
            )


def _facts(dataset: data.Dataset) -> dict[str, Any]:
    """What makes a data set another one, what is easiest to understand first."""
    known = hashlib.sha256()
    parts = () if dataset.part is None else (dataset.part,)
    for array in (dataset.client, dataset.y, dataset.recording, dataset.start, *parts, dataset.x):
        known.update(repr((array.shape, array.dtype.str)).encode())
        known.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {
        "classes": list(dataset.class_names),
        "clients": list(dataset.client_names),
        "channels": list(dataset.channel_names),
        "shape": list(dataset.sample_shape),
        "number of samples": len(dataset.x),
        "sha256": known.hexdigest(),
    }


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unseen_clients(scenario: Scenario, clients: int, seed: int) -> tuple[int, ...]:
    """Clients held out of training, drawn by the seed; ``SettingsError`` when fewer than two would be left."""
    count = scenario.evaluation.unseen_clients
    if clients < 2:
        raise SettingsError(
            "the data are one client's, and at least two clients have to train: divide them by partition.kind"
        )
    if clients - count < 2:
        raise SettingsError(
            f"evaluation.unseen_clients is {count} of {clients} clients; at least two clients have to train"
        )
    chosen = random_stream(seed, _UNSEEN).choice(clients, count, replace=False)
    return tuple(sorted(int(client) for client in chosen))


def random_stream(seed: int, purpose: int) -> np.random.Generator:
    """A generator for one purpose, independent of those for others."""
    return np.random.default_rng(np.random.SeedSequence([seed, purpose]))


def load_dataset(scenario: Scenario, seed: int) -> data.Dataset:
    """What the data's source holds, before any partition."""
    settings = scenario.data
    if settings.source is None:
        raise SettingsError(
            f"data.schema {settings.schema} tells of data that are elsewhere, and a simulation needs them here: set data.source "
            "instead; fedali run trains where they are"
        )
    kind = scenario.task.build().kind
    found = load_named(
        settings.source,
        window=settings.window,
        stride=settings.stride,
        reading=replace(reading_of(settings), targets=kind),
        subjects=settings.subjects,
        devices=settings.devices,
        clients=settings.clients,
        windows_per_client=settings.windows_per_client,
        seed=seed,
        options=settings.options,
    )
    if found.kind != kind:
        raise SettingsError(
            f"{settings.source} has {found.kind} to learn, and task {scenario.task.name!r} learns {kind}: choose another task, or other data"
        )
    return found


def reading_for_others(settings: DataSettings) -> Reading:
    """What of a scenario's settings is true of other files of the kind; their channels are the data set's."""
    found = reading_of(settings)
    return replace(found, columns=replace(found.columns, channels=None))


def reading_of(settings: DataSettings) -> Reading:
    """How own data are read."""
    columns = Columns() if settings.columns is None else Columns(**settings.columns.model_dump())
    return Reading(
        columns=columns,
        gap=settings.gap,
        unlabelled=_texts(settings.unlabelled),
        missing=_texts(settings.missing),
        header=settings.header,
        quote=settings.quote,
        escape=settings.escape,
        separator=settings.separator,
        decimal=settings.decimal,
        encoding=settings.encoding,
        time_format=settings.time_format,
        layout=settings.layout,
    )


def _texts(values: tuple[int | float | str, ...] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(map(str, values))


def _partition(scenario: Scenario, dataset: data.Dataset, rng: np.random.Generator) -> data.Partition:
    settings = scenario.partition
    if settings.kind == "dirichlet":
        return data.dirichlet(
            dataset.strata(), settings.clients, settings.alpha, rng, minimum=settings.minimum
        )
    if settings.kind == "shards":
        return data.shards(dataset.strata(), settings.clients, settings.shards_per_client, rng)
    return data.natural(dataset)
