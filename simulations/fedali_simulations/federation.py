"""From a scenario's settings to clients with their data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedali import data
from fedali.errors import SettingsError, did_you_mean
from fedali_simulations.scenario import Scenario

SOURCES = ("digits", "motionsense")  # what data.source may name, besides a path

_PARTITION, _UNSEEN = 10, 11  # what a random stream is for


def load_federation(scenario: Scenario, seed: int) -> data.Federation:
    """Clients with their data, for one seed; the same for every method."""
    dataset = _dataset(scenario, seed)
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
    )


def unseen_clients(scenario: Scenario, clients: int, seed: int) -> tuple[int, ...]:
    """Clients held out of training, drawn by the seed; ``SettingsError`` when fewer than two would be left."""
    count = scenario.evaluation.unseen_clients
    if clients - count < 2:
        raise SettingsError(
            f"evaluation.unseen_clients is {count} of {clients} clients; at least two clients have to train"
        )
    chosen = random_stream(seed, _UNSEEN).choice(clients, count, replace=False)
    return tuple(sorted(int(client) for client in chosen))


def random_stream(seed: int, purpose: int) -> np.random.Generator:
    """A generator for one purpose, independent of those for others."""
    return np.random.default_rng(np.random.SeedSequence([seed, purpose]))


def _dataset(scenario: Scenario, seed: int) -> data.Dataset:
    settings = scenario.data
    if settings.source == "digits":
        return data.load_digits_dataset()
    if settings.source == "motionsense":
        return data.load_motionsense(
            subjects=settings.subjects, windows_per_client=settings.windows_per_client, seed=seed
        )
    path = Path(settings.source)
    if not path.suffix and not path.exists():
        raise SettingsError(
            f"data.source {path.name!r} is no file or folder; {did_you_mean(path.name, SOURCES)}"
        )
    return data.load_own(path, window=settings.window, stride=settings.stride)


def _partition(scenario: Scenario, dataset: data.Dataset, rng: np.random.Generator) -> data.Partition:
    settings = scenario.partition
    if settings.kind == "dirichlet":
        return data.dirichlet(dataset.y, settings.clients, settings.alpha, rng, minimum=settings.minimum)
    if settings.kind == "shards":
        return data.shards(dataset.y, settings.clients, settings.shards_per_client, rng)
    return data.natural(dataset)
