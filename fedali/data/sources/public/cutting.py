"""From stretches of a signal to a data set: holes, pauses, a common clock, windows, and what is left out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import Dataset
from fedali.data.sources.public.facts import Wanted
from fedali.data.windows import cut_windows, window_starts
from fedali.errors import DataError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

BRIDGED = 0.1
"""Seconds: holes of lost packets up to that long are bridged by a straight line, in sets whose sensors lose packets."""


class Cutter:
    """Cuts windows as a reader goes on, so that the signals of one person at a time are in memory."""

    def __init__(self, wanted: Wanted, window: int, stride: int) -> None:
        self.wanted, self.window, self.stride = wanted, window, stride
        self.left_out: Counter[str] = Counter()
        self._cut: list[tuple[str, str, tuple[int, ...], Indices, int, Array]] = []

    def leave_out(self, what: str, count: int | np.generic) -> None:
        """Count something that is no part of the data set, for its notes."""
        if count:
            self.left_out[what] += int(count)

    def add(
        self,
        person: str,
        label: int,
        recording: tuple[int, ...],
        start: int,
        signal: Array,
        device: str = "",
    ) -> None:
        """A stretch ``signal`` [t, c] of one label, whose first sample is sample ``start`` of ``recording``.

        Rows with NaN end it: no window crosses them. Recordings of a person are in the order of their numbers; those of several
        devices at the same time are one, so that a split takes the same moments of all.
        """
        signal = np.asarray(signal, np.float32)
        whole = np.asarray(np.isfinite(signal).all(axis=1))
        self.leave_out("samples with missing values, left out", np.count_nonzero(~whole))
        for first, last in runs(whole):
            if not whole[first]:
                continue
            x = cut_windows(signal[first:last], self.window, self.stride)
            if not len(x):
                self.leave_out(f"stretches shorter than a window of {self.window}, left out (data.window)", 1)
                continue
            starts = start + first + window_starts(last - first, self.window, self.stride)
            self.add_windows(person, label, recording, starts, x, device)

    def add_windows(
        self,
        person: str,
        label: int,
        recording: tuple[int, ...],
        starts: Indices,
        x: Array,
        device: str = "",
    ) -> None:
        """Windows ``x`` [n, window, c] of one label that begin at ``starts`` [n] of ``recording``."""
        self._cut.append((person, device, recording, starts, label, x))

    def dataset(self, notes: Sequence[str] = ()) -> Dataset:
        """All windows as a data set, by client, recording and time; ``DataError`` when there is none."""
        facts = self.wanted.facts
        rank = {person: place for place, person in enumerate(facts.people)}
        device = {name: place for place, name in enumerate(facts.devices)} if self.wanted.by_device else {}
        self._cut.sort(key=lambda cut: (rank[cut[0]], device.get(cut[1], 0), cut[2], int(cut[3][0])))
        if not self._cut:
            why = "; ".join(self._notes())
            raise DataError(f"{facts.name} gives no window{': ' if why else ''}{why}")
        clients = [self.wanted.client(cut[0], cut[1]) for cut in self._cut]
        names = tuple(dict.fromkeys(clients))
        recordings: dict[tuple[str, tuple[int, ...]], int] = {}
        for client, cut in zip(clients, self._cut, strict=True):
            recordings.setdefault((client, cut[2]), len(recordings))
        sizes = [len(cut[3]) for cut in self._cut]
        index = [names.index(client) for client in clients]
        places = [recordings[client, cut[2]] for client, cut in zip(clients, self._cut, strict=True)]
        return Dataset(
            name=facts.name,
            x=np.concatenate([cut[5] for cut in self._cut]),
            y=np.repeat([cut[4] for cut in self._cut], sizes),
            client=np.repeat(index, sizes),
            client_names=names,
            class_names=facts.classes,
            channel_names=self.wanted.channels,
            recording=np.repeat(places, sizes),
            start=np.concatenate([cut[3] for cut in self._cut]),
            length=self.window,
            licence=facts.licence,
            citation=facts.citation,
            notes=(*notes, *self._notes(), *self._without(clients)),
            interval=1 / facts.rate,
            stride=self.stride,
        )

    def _notes(self) -> list[str]:
        return [f"{what}: {count:,}" for what, count in sorted(self.left_out.items())]

    def _without(self, clients: Sequence[str]) -> list[str]:
        have = {cut[0] for cut in self._cut}
        lost = [person for person in self.wanted.people if person not in have]
        classes = {cut[4] for cut in self._cut}
        empty = [name for place, name in enumerate(self.wanted.facts.classes) if place not in classes]
        notes = [f"people without a window: {', '.join(lost)}"] if lost else []
        return [*notes, f"classes without a window: {', '.join(empty)}"] if empty else notes


def runs(*keys: Array) -> list[tuple[int, int]]:
    """First and last + 1 row of each stretch in which all ``keys`` [n] stay the same.

    >>> runs(np.array([1, 1, 2, 2]), np.array([0, 0, 0, 5]))
    [(0, 2), (2, 3), (3, 4)]
    """
    if not len(keys[0]):
        return []
    new = np.zeros(len(keys[0]), bool)
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    edges = [0, *np.flatnonzero(new).tolist(), len(new)]
    return list(itertools.pairwise(edges))


def pauses(time: Array, most: float) -> Indices:
    """A number [n] that changes wherever ``time`` [n] goes back, or on by more than ``most``.

    >>> pauses(np.array([0.0, 1, 9, 10, 2]), 5)
    array([0, 0, 1, 1, 2])
    """
    step = np.diff(time)
    return np.concatenate([[0], np.cumsum((step < 0) | (step > most))]).astype(np.int64)


def bridge(signal: Array, most: int) -> tuple[Array, int]:
    """``signal`` [t, c] with each channel's holes of up to ``most`` rows bridged by straight lines, and how many values that are.

    A hole at the beginning or the end stays.

    >>> bridge(np.array([[0.0], [np.nan], [4.0], [np.nan]]), 1)
    (array([[ 0.],
           [ 2.],
           [ 4.],
           [nan]]), 1)
    """
    signal, filled = signal.copy(), 0
    rows = np.arange(len(signal))
    for channel in range(signal.shape[1]):
        missing = np.isnan(signal[:, channel])
        if not missing.any():
            continue
        holes = np.zeros(len(signal), bool)
        for first, last in runs(missing):
            if missing[first] and first > 0 and last < len(signal) and last - first <= most:
                holes[first:last] = True
        if holes.any():
            signal[holes, channel] = np.interp(rows[holes], rows[~missing], signal[~missing, channel])
            filled += int(holes.sum())
    return signal, filled


def on_grid(sensors: Sequence[tuple[Indices, Array]], step: int, most: float) -> tuple[int, Array]:
    """Sensors that measure at times of their own, on one clock: the first tick, and the values [ticks, c] at multiples of ``step``.

    Each of ``sensors`` is (time [n] that does not go back, values [n, k]); of equal times the first counts. Values between two
    samples lie on the straight line between them, and are NaN where those are more than ``most`` apart. Ticks outside of what
    all sensors have seen are left out.
    """
    first = [np.flatnonzero(np.diff(time, prepend=time[:1] - 1)) for time, _ in sensors]
    known = [(time[rows], values[rows]) for (time, values), rows in zip(sensors, first, strict=True)]
    channels = sum(values.shape[1] for _, values in known)
    if any(not len(time) for time, _ in known):
        return 0, np.empty((0, channels), np.float32)
    begin = -(-max(int(time[0]) for time, _ in known) // step)
    end = min(int(time[-1]) for time, _ in known) // step
    ticks = np.arange(begin, end + 1, dtype=np.int64) * step
    grid = np.empty((len(ticks), channels), np.float32)
    column = 0
    for time, values in known:
        after = np.searchsorted(time, ticks)
        before = np.maximum(after - 1, 0)
        hole = (time[after] != ticks) & (time[after] - time[before] > most)
        at, given = (ticks - time[0]).astype(float), (time - time[0]).astype(float)
        for k in range(values.shape[1]):
            line = np.interp(at, given, values[:, k])
            grid[:, column] = np.where(hole, np.nan, line)
            column += 1
    return begin, grid
