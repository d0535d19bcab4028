"""How a file was read, and what its times say: small facts that stay with a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HOLE = 1.5
"""Median intervals of a recording: from here on samples are missing; windows go across up to ``data.gap`` of them."""

_ENOUGH = 32  # intervals: the rate of a recording with fewer says little

Times = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clock:
    """How the times of one file run: in seconds where they are dates, else in whatever its numbers count.

    Args:
        column: its name in the file.
        dates: whether all are dates and times, so that the unit is certain.
        first: the earliest time.
        rows: that came after the first moment of a stretch without a pause, all together.
        span: what these stretches lasted.
        slowest: rows in a unit of time, of the recording with the fewest; of those that are long enough to tell.
        fastest: of the one with the most.
        interval: the median of the intervals that are neither 0 nor pauses.
        low: 5 % of them are shorter.
        high: 5 % are longer.
        whole: whether all times are whole numbers.
        equal: rows with the time of the row before, as in packets.
        pauses: intervals that no window crosses, and the ``longest_pause``.
        holes: other intervals of ``HOLE`` medians and more, and the ``longest_hole``.
    """

    column: str
    dates: bool
    first: float
    rows: int
    span: float
    slowest: float
    fastest: float
    interval: float
    low: float
    high: float
    whole: bool
    equal: int
    pauses: int
    longest_pause: float
    holes: int
    longest_hole: float


@dataclass(frozen=True)
class SeenFile:
    """How one file of a user's own data was read.

    Args:
        where: its path.
        labels: their form, in words.
        rows: raw samples of a CSV; 0 of others.
        unlabelled: of these (or of the samples), without a label.
        columns: pairs of what a column is for and its name.
        separator: of a CSV, as all below; "" of others.
        decimal: sign before decimals.
        encoding: of its text.
        header: the line that names the columns, from 1.
        clock: of its times; None without.
    """

    where: str
    labels: str
    rows: int = 0
    unlabelled: int = 0
    columns: tuple[tuple[str, str], ...] = ()
    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    header: int = 0
    clock: Clock | None = None


def clock_of(
    column: str, times: Times, recording: Indices, paused: npt.NDArray[np.bool_], *, dates: bool
) -> Clock | None:
    """The clock of ``times`` [n] that do not go back in a recording; ``recording`` [n] counts up, ``paused`` [n] is true after a pause.

    None where no time follows another.

    >>> clock = clock_of("t", np.array([0.0, 1, 2, 9, 10]), np.zeros(5, np.int64), np.arange(5) == 3, dates=False)
    >>> clock.interval, clock.rows / clock.span, clock.pauses, clock.longest_pause
    (1.0, 1.0, 1, 7.0)
    """
    steps = np.diff(times)
    inside = np.diff(recording) == 0
    running = inside & ~paused[1:]
    moving = running & (steps > 0)
    if not moving.any():
        return None
    begins = np.flatnonzero(np.concatenate([[True], ~running]))
    ends = np.append(begins[1:], len(times)) - 1
    stretch = np.cumsum(np.concatenate([[True], ~running])) - 1
    at_once = np.add.reduceat((times == times[begins][stretch]).astype(np.int64), begins)
    rows, spans = ends + 1 - begins - at_once, times[ends] - times[begins]
    size = int(recording.max()) + 1
    of_recording = np.bincount(recording[begins], rows, size), np.bincount(recording[begins], spans, size)
    tell = of_recording[0] >= min(_ENOUGH, of_recording[0].max())
    rates = of_recording[0][tell] / of_recording[1][tell]
    holes = moving & (steps >= HOLE * _medians(steps, recording[1:], moving, size)[recording[1:]])
    low, interval, high = np.percentile(steps[moving], [5, 50, 95]).tolist()
    pauses = steps[inside & paused[1:]]
    return Clock(
        column=column,
        dates=dates,
        first=float(times.min()),
        rows=int(rows.sum()),
        span=float(spans.sum()),
        slowest=float(rates.min()),
        fastest=float(rates.max()),
        interval=interval,
        low=low,
        high=high,
        whole=bool((times == np.rint(times)).all()),
        equal=int(np.count_nonzero(running & (steps == 0))),
        pauses=len(pauses),
        longest_pause=float(pauses.max(initial=0)),
        holes=int(holes.sum()),
        longest_hole=float(steps[holes].max(initial=0)),
    )


def _medians(steps: Times, recording: Indices, moving: npt.NDArray[np.bool_], size: int) -> Times:
    """The median of the ``moving`` steps [n] of each recording; infinite where there are none."""
    found = np.full(size, np.inf)
    kept, owner = steps[moving], recording[moving]
    edges = np.flatnonzero(np.diff(owner)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(kept)], strict=True):
        found[owner[begin]] = np.median(kept[begin:end])
    return found
