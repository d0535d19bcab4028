"""A data set in numbers for people: clients, classes, channels, times, windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import Dataset
from fedali.data.look.files import SeenFile
from fedali.data.look.times import Times, times_of
from fedali.data.normalisation import channel_axis, channel_sums, is_constant


@dataclass(frozen=True)
class ClientFacts:
    """A client's samples, those of each class, and its recordings."""

    name: str
    samples: int
    counts: tuple[int, ...]
    recordings: int


@dataclass(frozen=True)
class ClassFacts:
    """A class's samples, and the clients that have none of it."""

    name: str
    samples: int
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class ChannelFacts:
    """Values of a channel over all samples; a ``constant`` one changes by no more than rounding."""

    name: str
    low: float
    mean: float
    high: float
    deviation: float
    constant: bool


@dataclass(frozen=True)
class Look:
    """What FedAli makes of a data set.

    Args:
        name: the data set's.
        samples: how many; windows, of recordings.
        shape: of one: [features], [time, channels] or [channels, height, width].
        dtype: as stored.
        clients: in the order of the data.
        classes: in the order of their indices.
        channels: in the order of the data.
        recordings: how many a window was cut from; 0 where samples are independent.
        length: raw rows that a window spans; 0 likewise.
        stride: raw rows between the beginnings of windows that were cut; None where that is not known.
        shared: the share of a window's rows that the next one has too, the median over neighbours in a recording.
        rows: raw rows in the files; 0 where that is not known.
        used: raw rows in one window or more; 0 where samples are independent.
        times: what times say; None without any.
        rate: raw rows a second of a data set that is described with one; None of others, whose times may say it.
        files: how each file was read; none of a built-in data set.
        notes: what was left out, and why.
    """

    name: str
    samples: int
    shape: tuple[int, ...]
    dtype: str
    clients: tuple[ClientFacts, ...]
    classes: tuple[ClassFacts, ...]
    channels: tuple[ChannelFacts, ...]
    recordings: int
    length: int
    stride: int | None
    shared: float
    rows: int
    used: int
    times: Times | None
    rate: float | None
    files: tuple[SeenFile, ...]
    notes: tuple[str, ...]


def look_at(dataset: Dataset) -> Look:
    """The facts of a data set. It is read twice, some samples at a time."""
    counts = dataset.counts()
    names = np.array(dataset.client_names, object)
    windows = dataset.length > 1
    pairs = np.unique(np.stack([dataset.client, dataset.recording]), axis=1)
    recordings = np.bincount(pairs[0], minlength=len(names)) if windows else np.zeros(len(names), np.int64)
    used, shared = _covered(dataset) if windows else (0, 0.0)
    return Look(
        name=dataset.name,
        samples=len(dataset.y),
        shape=dataset.sample_shape,
        dtype=dataset.x.dtype.name,
        clients=tuple(
            ClientFacts(name, int(row.sum()), tuple(row.tolist()), int(n))
            for name, row, n in zip(dataset.client_names, counts, recordings, strict=True)
        ),
        classes=tuple(
            ClassFacts(name, int(column.sum()), tuple(names[column == 0].tolist()))
            for name, column in zip(dataset.class_names, counts.T, strict=True)
        ),
        channels=_channels(dataset),
        recordings=len(np.unique(dataset.recording)) if windows else 0,
        length=dataset.length if windows else 0,
        stride=dataset.stride,
        shared=shared,
        rows=sum(file.rows for file in dataset.files),
        used=used,
        times=times_of([file.clock for file in dataset.files if file.clock is not None]),
        rate=None if dataset.files or dataset.interval is None else 1 / dataset.interval,
        files=dataset.files,
        notes=dataset.notes,
    )


def _channels(dataset: Dataset) -> tuple[ChannelFacts, ...]:
    x = dataset.x
    others = tuple(d for d in range(x.ndim) if d != channel_axis(x.ndim - 1) + 1)
    low, high = _numbers(x.min(axis=others)), _numbers(x.max(axis=others))
    sums = channel_sums(x)
    mean = sums.sums / sums.count
    deviation = np.sqrt(np.maximum(sums.squares / sums.count - np.square(mean), 0))
    return tuple(
        ChannelFacts(name, a, float(m), b, float(d), is_constant(a, b))
        for name, a, m, b, d in zip(dataset.channel_names, low, mean, high, deviation, strict=True)
    )


def _numbers(values: npt.NDArray[Any]) -> list[float]:
    return [float(value) for value in values]


def _covered(dataset: Dataset) -> tuple[int, float]:
    """Raw rows in one window or more, and the median share of rows that neighbours have in common."""
    order = np.lexsort((dataset.start, dataset.recording))
    steps = np.diff(dataset.start[order])
    near = np.diff(dataset.recording[order]) == 0
    new = np.where(near, np.minimum(steps, dataset.length), dataset.length)
    common = np.maximum(dataset.length - steps[near], 0) / dataset.length
    return dataset.length + int(new.sum()), float(np.median(common)) if near.any() else 0.0
