"""Training, validation and test samples of one client, with no raw measurement in two of them.

Overlapping windows make a plain split leak: the last training window and the first test window would share samples.
Here each class of a client is cut, in time order, into train | gap | validation | gap | test, where the gaps are the
windows that would share samples across a cut. Where to cut is searched: of all ways that keep each part within one
window of its fraction of what is kept, the one that drops the fewest windows (a cut between two recordings costs none).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError, SettingsError, did_you_mean

Indices = npt.NDArray[np.int64]

ORDERS = ("time", "recording", "random")
_SEARCH_ALL = 256  # classes of up to so many windows are searched through, larger ones near their fractions
_DROPPED = -1


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted row indices of one client's parts, and how many rows are in none of them."""

    train: Indices
    validation: Indices
    test: Indices
    dropped: int


def split(
    y: npt.ArrayLike,
    recording: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
    length: int = 0,
    *,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    order: str = "time",
    rng: np.random.Generator | None = None,
) -> Split:
    """Split one client's samples by class: labels ``y`` [n], ``recording`` [n], ``start`` [n] and ``length`` as in `Dataset`.

    ``order="time"`` sorts by recording, then start, and puts the earliest into training: tests are mostly on recordings
    that training never saw. ``"recording"`` does so inside each recording: every recording gives its beginning to
    training and its end to the test. ``"random"`` shuffles by ``rng`` and is for samples that do not overlap. ``fractions`` are those of train, validation (may be 0) and test.

    A class with three windows that do not overlap is in all three parts; with fewer, training comes first, then test.
    Windows of different classes that overlap in one recording and fall into different parts are dropped too, fewest
    first; only then may a part be more than one window away from its fraction.

    Raises ``SettingsError`` for bad fractions, an unknown order, or a random order of overlapping windows, ``DataError``
    for arrays of different lengths.

    >>> parts = split([0] * 10, [7] * 10, range(0, 640, 64), 128)  # windows of 128, stride 64
    >>> parts.train, parts.validation, parts.test, parts.dropped
    (array([0, 1, 2, 3, 4]), array([6]), array([8, 9]), 2)
    """
    fractions = check_fractions(fractions)
    if order not in ORDERS:
        raise SettingsError(f"unknown order {order!r}; {did_you_mean(order, ORDERS)}")
    labels = np.asarray(y)
    n = len(labels)
    time = _timeline(n, recording, start, length)
    overlap = length if length > 1 else 0
    if order == "random":
        if rng is None:
            raise SettingsError("a random order needs a random generator")
        if overlap and (np.diff(np.sort(time)) < overlap).any():
            raise SettingsError(
                "samples overlap in time, so that a random order would leak; use order = 'time'"
            )
        overlap = 0
    part = np.full(n, _DROPPED)
    strata = labels
    if order == "recording" and recording is not None:
        strata = np.unique(np.stack([labels, np.asarray(recording)]), axis=1, return_inverse=True)[1].reshape(
            -1
        )
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        if order == "random":
            rows = rng.permutation(rows)  # type: ignore[union-attr]
            moments = np.arange(len(rows))
        else:
            rows = rows[np.argsort(time[rows], kind="stable")]
            moments = time[rows]
        train, validation, test = _cut(moments, overlap, fractions)
        for number, piece in enumerate((train, validation, test)):
            part[rows[piece]] = number
    if overlap:
        _separate(part, labels, time, overlap)
    rows_of = [np.flatnonzero(part == number) for number in range(3)]
    return Split(rows_of[0], rows_of[1], rows_of[2], int(np.count_nonzero(part == _DROPPED)))


def given_parts(
    part: Indices, y: Indices, fractions: tuple[float, float, float], rng: np.random.Generator
) -> Split:
    """The parts that ``part`` [n] names, 0 to 2; a client without validation samples gives a share of its training samples to it, by ``rng``.

    >>> parts = given_parts(np.array([2, 0, 0, 0, 0]), np.zeros(5, int), (0.6, 0.2, 0.2), np.random.default_rng(0))
    >>> len(parts.train), len(parts.validation), parts.test
    (3, 1, array([0]))
    """
    train, validation, test = (np.flatnonzero(part == number) for number in range(3))
    share = fractions[1] / (fractions[0] + fractions[1])
    if len(validation) or not share or not len(train):
        return Split(train, validation, test, 0)
    inner = split(y[train], fractions=(1 - share, 0.0, share), order="random", rng=rng)
    return Split(train[inner.train], train[inner.test], test, 0)


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """The three fractions; ``SettingsError`` unless they sum to 1 with train and test above 0."""
    if len(fractions) != 3 or not all(math.isfinite(f) and f >= 0 for f in fractions):
        raise SettingsError(
            f"fractions must be three numbers for train, validation and test, not {list(fractions)}"
        )
    train, validation, test = (float(f) for f in fractions)
    if abs(train + validation + test - 1) > 1e-6:
        raise SettingsError(
            f"fractions must sum to 1; {list(fractions)} sum to {train + validation + test:g}"
        )
    if train == 0 or test == 0:
        raise SettingsError(f"training and test fractions must be above 0, not {list(fractions)}")
    return train, validation, test


def _timeline(n: int, recording: npt.ArrayLike | None, start: npt.ArrayLike | None, length: int) -> Indices:
    """Each window's place [n] on one axis: recordings one after another, farther apart than ``length``."""
    ids = np.arange(n) if recording is None else np.asarray(recording, np.int64)
    begins = np.zeros(n, np.int64) if start is None else np.asarray(start, np.int64)
    if ids.shape != (n,) or begins.shape != (n,):
        raise DataError(f"{n} labels need {n} recordings and starts, not {ids.shape} and {begins.shape}")
    if n == 0:
        return begins
    _, rank = np.unique(ids, return_inverse=True)
    first = np.full(int(rank.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, rank, begins)
    offset = begins - first[rank]
    return np.asarray(rank * (int(offset.max()) + max(length, 1)) + offset, np.int64)


def _cut(moments: Indices, length: int, fractions: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """Where to cut one class, whose windows begin at the sorted ``moments`` [n]: its train, validation and test slices."""
    n = len(moments)
    counts = np.arange(n + 1)
    if (
        length
    ):  # after a train of a windows, the rest is free from after[a]; before a test from s, up to before[s]
        after = np.concatenate([[0], np.searchsorted(moments, moments + length)])
        before = np.concatenate([np.searchsorted(moments, moments - length, side="right"), [n]])
    else:
        after, before = counts, counts
    gap = int((after - counts).max())
    trains, tests = counts, counts
    if n > _SEARCH_ALL:
        trains = _near(fractions[0], n, gap)
        tests = n - _near(fractions[2], n, gap)[::-1]
    a, s = (grid.ravel() for grid in np.meshgrid(trains, tests, indexing="ij"))
    allowed = after[a] <= s
    a, s = a[allowed], s[allowed]
    room = np.maximum(before[s] - after[a], 0)
    fair = np.maximum(np.rint((a + n - s) * fractions[1] / (1 - fractions[1])).astype(np.int64), 1)
    middle = (
        np.concatenate([room, np.minimum(room, fair)]) if fractions[1] else np.zeros(2 * len(room), np.int64)
    )
    a, s = np.tile(a, 2), np.tile(s, 2)
    sizes = np.stack([a, middle, n - s])
    kept = sizes.sum(axis=0)
    away = np.abs(sizes - np.array(fractions)[:, None] * kept).max(axis=0).round(9)
    empty = 4 * (sizes[0] == 0) + 2 * (sizes[2] == 0) + ((sizes[1] == 0) & (fractions[1] > 0))
    too_far = np.where(empty == 0, np.maximum(away - 1, 0), 0)
    best = np.lexsort((away, n - kept, too_far, empty))[0]
    begin = int(after[a[best]])
    return slice(0, int(a[best])), slice(begin, begin + int(middle[best])), slice(int(s[best]), n)


def _near(fraction: float, n: int, gap: int) -> Indices:
    """Sizes worth trying for a part of ``fraction``, when up to two gaps are dropped from ``n`` windows."""
    low = math.floor(fraction * (n - 2 * gap)) - gap - 2
    high = math.ceil(fraction * n) + gap + 2
    return np.arange(max(low, 0), min(high, n) + 1)


def _separate(part: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], time: Indices, length: int) -> None:
    """Drop windows, in place, until none shares samples with a window of another part.

    Greedily the window with most such neighbours goes, of a larger rather than a smaller group (class and part), and
    the last one of its group only if it must.
    """
    rows = np.argsort(time, kind="stable")
    rows = rows[part[rows] != _DROPPED]
    neighbours: dict[int, set[int]] = {}
    for distance in range(1, len(rows)):
        left, right = rows[:-distance], rows[distance:]
        close = time[right] - time[left] < length
        if not close.any():
            break
        for i, j in zip(left[close].tolist(), right[close].tolist(), strict=True):
            if part[i] != part[j]:
                neighbours.setdefault(i, set()).add(j)
                neighbours.setdefault(j, set()).add(i)
    while neighbours:
        sizes = {i: int(np.count_nonzero((part == part[i]) & (labels == labels[i]))) for i in neighbours}
        worst = max(neighbours, key=lambda i: (sizes[i] > 1, len(neighbours[i]), sizes[i], -i))
        part[worst] = _DROPPED
        for other in neighbours.pop(worst):
            neighbours[other].discard(worst)
            if not neighbours[other]:
                del neighbours[other]
