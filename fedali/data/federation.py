"""Clients with their own training, validation and test samples, ready for a simulation."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data import shift as domain_shift
from fedali.data.dataset import TOKENS, Dataset
from fedali.data.normalisation import Normalisation as Normalisation
from fedali.data.normalisation import (
    channel_axis,
    channel_shape,
    channel_statistics,
    constant_channels,
    constant_note,
)
from fedali.data.partition import Partition
from fedali.data.split import Split, check_fractions, given_parts, split
from fedali.errors import DataError, SettingsError, did_you_mean
from fedali.targets import Targets, counts, fit_numbers

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

NORMALISATIONS = ("global", "client", "none")
_WORDS = {"classes": "classes", "labels": "labels", "numbers": "targets"}
MEASURED_ON = ("test", "validation")

_SPLIT, _DRAW, _APPLY, _INNER = 1, 2, 3, 4  # what a random stream is for; part of its seed


@dataclass(frozen=True, eq=False)
class ClientData:
    """One client's samples, in three parts: ``x_*`` [n, *shape] in the stored dtype, ``y_*`` [n] int64, or [n, T] float32 without classes;
    numbers are normalised, see ``Federation.targets``.
    """

    name: str
    x_train: Array
    y_train: Indices
    x_validation: Array
    y_validation: Indices
    x_test: Array
    y_test: Indices


@dataclass(frozen=True, eq=False)
class Federation:
    """All clients of a study, how to normalise each one's samples, and what was done to get here.

    ``shifts`` holds each client's domain shift as ``fedali.data.shift.draw`` gave it; it is empty without one.
    ``constant`` is the part of ``notes`` on channels that do not change.
    """

    name: str
    clients: tuple[ClientData, ...]
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: tuple[Normalisation, ...]
    notes: tuple[str, ...]
    licence: str
    citation: str
    shifts: tuple[dict[str, Any], ...] = ()
    constant: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()
    interval: float | None = None
    stride: int | None = None
    measured: Targets | None = None

    @property
    def targets(self) -> Targets:
        """What is learnt of the samples."""
        return Targets(self.class_names) if self.measured is None else self.measured

    def counted(self, clients: Sequence[int]) -> Targets:
        """``targets`` with the training samples of each class, or with each label, of some clients together."""
        targets, total = self.targets, np.zeros(len(self.class_names), np.float64)
        for client in clients:
            total += counts(targets.kind, self.clients[client].y_train, len(total))
        return replace(targets, counts=total, samples=sum(len(self.clients[k].y_train) for k in clients))

    @property
    def tokens(self) -> bool:
        """Whether samples are ids of tokens, which models take as they are."""
        return self.clients[0].x_train.dtype.name == TOKENS

    def counts(self) -> Indices:
        """Samples per client and class, or label, [clients, classes], all three parts together; of numbers by fifths of the first."""
        rows = [np.concatenate([c.y_train, c.y_validation, c.y_test]) for c in self.clients]
        if self.targets.kind == "labels":
            return np.array([y.sum(0) for y in rows], np.int64)
        if self.targets.kind == "numbers":
            edges = self._fifths(rows)
            rows = [np.searchsorted(edges, y[:, 0], side="right") for y in rows]
            return np.array([np.bincount(y, minlength=len(edges) + 1) for y in rows], np.int64)
        return np.array([np.bincount(y, minlength=len(self.class_names)) for y in rows], np.int64)

    @property
    def count_names(self) -> tuple[str, ...]:
        """What the columns of ``counts`` are of."""
        targets = self.targets
        if targets.kind != "numbers":
            return self.class_names
        edges = self._fifths([np.concatenate([c.y_train, c.y_validation, c.y_test]) for c in self.clients])
        mean, std = np.ravel(targets.mean)[0], np.ravel(targets.std)[0]
        shown = [f"{edge * std + mean:.3g}" for edge in edges]
        ranges = [
            f"below {shown[0]}",
            *(f"{a} to {b}" for a, b in itertools.pairwise(shown)),
            f"{shown[-1]} or more",
        ]
        return tuple(ranges)

    def _fifths(self, rows: Sequence[Array]) -> Array:
        found: Array = np.unique(np.quantile(np.concatenate(rows)[:, 0], (0.2, 0.4, 0.6, 0.8)))
        return found

    def describe(self) -> str:
        """A few lines for people: sizes, what was done, licence and source."""
        sizes = np.array([[len(c.y_train), len(c.y_validation), len(c.y_test)] for c in self.clients])
        total, per_client = sizes.sum(axis=0), sizes.sum(axis=1)
        lines = [
            f"{self.name}: {len(self.clients)} clients, {len(self.class_names)} {_WORDS[self.targets.kind]}, samples {list(self.input_shape)}",
            f"{total[0]} training, {total[1]} validation, {total[2]} test samples; "
            f"{per_client.min()} to {per_client.max()} per client",
            *self.notes,
            f"licence: {self.licence}",
        ]
        return "\n".join([*lines, f"source: {self.citation}"] if self.citation else lines)


def build_federation(
    dataset: Dataset,
    *,
    partition: Partition,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    order: str = "time",
    normalise: str = "global",
    shift: tuple[str, float] | None = None,
    seed: int,
    minimum_train: int = 1,
    held_out: Sequence[int] = (),
    measured_on: str = "test",
) -> Federation:
    """Give each client its samples by ``partition``, shift them, split them, and take normalisation statistics.

    ``fractions`` and ``order`` are those of ``fedali.data.split.split``; ``shift`` is a kind and a severity as in
    ``fedali.data.shift``, drawn anew for each client. ``normalise`` takes mean and standard deviation per channel from
    training samples alone, of all clients together (``"global"``) or of each (``"client"``); clients ``held_out`` of
    training, given by position, have no part in the former. The same ``seed`` gives the
    same bits, and a client's random numbers depend on its position alone.

    ``measured_on="validation"`` is for choosing settings: each client is tested on its validation samples, its test samples are
    left alone, and a share of its training samples, cut off in the same way, validates in their place.

    Raises ``SettingsError`` for settings that make no sense, and ``DataError`` for a client left with fewer than
    ``minimum_train`` training samples or no test samples.
    """
    fractions = check_fractions(fractions)
    if normalise not in NORMALISATIONS:
        raise SettingsError(f"unknown normalisation {normalise!r}; {did_you_mean(normalise, NORMALISATIONS)}")
    if measured_on not in MEASURED_ON:
        raise SettingsError(f"cannot measure on {measured_on!r}; {did_you_mean(measured_on, MEASURED_ON)}")
    if dataset.tokens:
        if shift is not None:
            raise SettingsError(f"ids of tokens have no domain shift of {shift[0]}: leave it out")
        normalise = "none"  # an id is no quantity
    if measured_on == "validation" and fractions[1] == 0:
        raise SettingsError("there are no validation samples to measure on: set split.validation above 0")
    seed = _check_seed(seed)
    _check_partition(partition, dataset)
    clients, shifts, dropped = [], [], 0
    strata = dataset.y if dataset.kind == "classes" else np.zeros(len(dataset.y), np.int64)
    for k, (name, rows) in enumerate(zip(partition.names, partition.assignments, strict=True)):
        x, places = dataset.x, rows  # samples are copied once, into the parts; a memory-mapped x is read once
        if shift is not None:
            channels = dataset.x.shape[channel_axis(dataset.x.ndim - 1) + 1]
            shifts.append(domain_shift.draw(*shift, _stream(seed, _DRAW, k), channels=channels))
            x = domain_shift.apply(dataset.x[rows], shifts[-1], _stream(seed, _APPLY, k))
            places = np.arange(len(rows))
        if dataset.part is None:
            parts = split(
                strata[rows],
                dataset.recording[rows],
                dataset.start[rows],
                dataset.length,
                fractions=fractions,
                order=order,
                rng=_stream(seed, _SPLIT, k),
            )
        else:
            parts = given_parts(dataset.part[rows], strata[rows], fractions, _stream(seed, _SPLIT, k))
        _check_parts(dataset.name, name, parts, max(minimum_train, 1))
        if measured_on == "validation":
            parts = _without_tests(dataset, strata, rows, parts, fractions, order, _stream(seed, _INNER, k))
            _check_parts(dataset.name, name, parts, max(minimum_train, 1), "validation")
        dropped += parts.dropped
        clients.append(_client(name, x, places, dataset.y[rows], parts))
    measured = _measured(dataset, clients, held_out)
    if dataset.kind == "numbers":
        clients = [_normalised(client, measured) for client in clients]
    normalisation = _normalisations(clients, normalise, held_out)
    constant = () if normalise == "none" else _constant(dataset, clients, normalisation, normalise, held_out)
    return Federation(
        name=dataset.name,
        clients=tuple(clients),
        input_shape=dataset.sample_shape,
        class_names=dataset.class_names,
        normalisation=normalisation,
        notes=(
            *dataset.notes,
            *partition.notes,
            *_notes(dataset, partition, clients, dropped, fractions, normalise, shift),
            *(
                ["measured on validation samples; no test sample is read"]
                if measured_on == "validation"
                else []
            ),
            *constant,
        ),
        licence=dataset.licence,
        citation=dataset.citation,
        shifts=tuple(shifts),
        constant=tuple(constant),
        channel_names=dataset.channel_names,
        interval=dataset.interval,
        stride=dataset.stride,
        measured=measured,
    )


def _measured(dataset: Dataset, clients: Sequence[ClientData], held_out: Sequence[int]) -> Targets:
    """What is learnt, by the training samples of all clients that are not ``held_out``."""
    if dataset.kind != "numbers":
        return Targets(dataset.class_names, dataset.kind)
    y = np.concatenate([client.y_train for k, client in enumerate(clients) if k not in held_out])
    return fit_numbers(dataset.class_names, y)


def _normalised(client: ClientData, targets: Targets) -> ClientData:
    return replace(
        client,
        y_train=targets.normalised(client.y_train),
        y_validation=targets.normalised(client.y_validation),
        y_test=targets.normalised(client.y_test),
    )


def _check_seed(seed: int) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise SettingsError(f"the seed must be a whole number of at least 0, not {seed!r}")
    return number


def _stream(seed: int, purpose: int, client: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, purpose, client]))


def _check_partition(partition: Partition, dataset: Dataset) -> None:
    """Raise ``SettingsError`` unless each sample belongs to exactly one client."""
    if not partition.assignments:
        raise SettingsError("the partition has no clients")
    rows = np.concatenate(partition.assignments)
    if not np.array_equal(np.sort(rows), np.arange(len(dataset.y))):
        raise SettingsError(
            f"the partition of {len(rows)} indices does not give each of the {len(dataset.y)} samples of "
            f"{dataset.name!r} to exactly one client; partition this data set"
        )


def _without_tests(
    dataset: Dataset,
    strata: Indices,
    rows: Indices,
    parts: Split,
    fractions: tuple[float, float, float],
    order: str,
    rng: np.random.Generator,
) -> Split:
    """A client's parts with the validation samples as tests, and a share of the training samples as validation."""
    mine = rows[parts.train]
    share = fractions[1] / (fractions[0] + fractions[1])
    inner = split(
        strata[mine],
        dataset.recording[mine],
        dataset.start[mine],
        dataset.length,
        fractions=(1 - share, 0.0, share),
        order=order,
        rng=rng,
    )
    train, validation = parts.train[inner.train], parts.train[inner.test]
    return Split(train, validation, parts.validation, parts.dropped + inner.dropped)


def _check_parts(
    dataset: str, client: str, parts: Split, minimum_train: int, tested_on: str = "test"
) -> None:
    if len(parts.train) < minimum_train:
        raise DataError(
            f"data set {dataset!r}: client {client!r} has {len(parts.train)} training samples, fewer than "
            f"{minimum_train}; give it more data, use fewer clients, or raise the training fraction"
        )
    if len(parts.test) == 0:
        raise DataError(
            f"data set {dataset!r}: client {client!r} has no {tested_on} samples; give it at least three samples of a class "
            "that do not overlap, or use fewer clients"
        )


def _client(name: str, x: Array, places: Indices, y: Indices, parts: Split) -> ClientData:
    """A client whose samples [n] are at ``places`` [n] of ``x``, with labels ``y`` [n]."""
    train, validation, test = parts.train, parts.validation, parts.test
    x_train, x_validation, x_test = (x[places[part]] for part in (train, validation, test))
    return ClientData(name, x_train, y[train], x_validation, y[validation], x_test, y[test])


def _normalisations(
    clients: Sequence[ClientData], normalise: str, held_out: Sequence[int]
) -> tuple[Normalisation, ...]:
    """One normalisation per client, from training samples alone."""
    if normalise == "global":
        seen = [client.x_train for k, client in enumerate(clients) if k not in held_out]
        return (channel_statistics(seen),) * len(clients)
    if normalise == "client":
        return tuple(channel_statistics([c.x_train]) for c in clients)
    shape = channel_shape(clients[0].x_train.shape[1:])
    return (Normalisation(np.zeros(shape, np.float32), np.ones(shape, np.float32)),) * len(clients)


def _constant(
    dataset: Dataset,
    clients: Sequence[ClientData],
    normalisation: Sequence[Normalisation],
    normalise: str,
    held_out: Sequence[int],
) -> list[str]:
    """A note that names the channels that never change in what they are normalised by."""
    if normalise == "global":
        seen = [client.x_train for k, client in enumerate(clients) if k not in held_out]
        return constant_note([dataset.channel_names[k] for k in constant_channels(normalisation[0], seen)])
    found = [constant_channels(own, [c.x_train]) for own, c in zip(normalisation, clients, strict=True)]
    names = [dataset.channel_names[k] for k in sorted({k for channels in found for k in channels})]
    return constant_note(names, f" of {sum(map(bool, found))} clients")


def _notes(
    dataset: Dataset,
    partition: Partition,
    clients: Sequence[ClientData],
    dropped: int,
    fractions: tuple[float, float, float],
    normalise: str,
    shift: tuple[str, float] | None,
) -> list[str]:
    """What was done after partitioning, in words."""
    notes = []
    shared = _shared_between_clients(dataset, partition)
    if shared:
        notes.append(
            f"{shared} pairs of overlapping windows lie with different clients, so that clients share raw samples"
        )
    if shift is not None:
        notes.append(f"domain shift of {shift[0]} drawn per client, severity {shift[1]:g}")
    if dropped:
        notes.append(f"dropped {dropped} of {len(dataset.y)} windows, so that no raw sample is in two parts")
    without = sum(len(c.y_validation) == 0 for c in clients) if fractions[1] else 0
    if without:
        notes.append(f"{without} clients have no validation samples")
    if normalise != "none":
        whose = (
            "all clients' training samples" if normalise == "global" else "each client's own training samples"
        )
        notes.append(f"normalised per channel with the statistics of {whose}")
    return notes


def _shared_between_clients(dataset: Dataset, partition: Partition) -> int:
    """Pairs of windows, next to each other in a recording, that overlap but belong to different clients."""
    if dataset.length <= 1:
        return 0
    owner = np.empty(len(dataset.y), np.int64)
    for k, rows in enumerate(partition.assignments):
        owner[rows] = k
    order = np.lexsort((dataset.start, dataset.recording))
    near = (np.diff(dataset.recording[order]) == 0) & (np.diff(dataset.start[order]) < dataset.length)
    return int(np.count_nonzero(near & (np.diff(owner[order]) != 0)))
