"""A data set in memory: samples, labels, whose they are, and which of them share raw measurements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.look.files import SeenFile
from fedali.data.normalisation import channel_axis as channel_axis
from fedali.errors import DataError
from fedali.targets import Kind

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_TENTHS = np.arange(1, 10) / 10
STORED_DTYPES = ("float16", "float32", "uint8")
TOKENS = "int64"
"""Dtype of samples that are ids of tokens: they are stored and trained on as they are."""
PARTS = ("training", "validation", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of many clients.

    ``x`` [N, *shape] is float16, float32 or uint8 and stays as stored; a sample is a feature vector [f], a window
    [t, c] or an image [c, h, w]; or int64, and a sample is a text of token ids [t], 0 or more. ``y`` [N] indexes ``class_names``, ``client`` [N] indexes ``client_names``.
    Where ``kind`` is ``"labels"`` or ``"numbers"``, ``y`` [N, T] holds 0 and 1, or measured quantities, and ``class_names`` [T] says of what.

    ``recording`` [N] is the id of the continuous recording that a window was cut from, ``start`` [N] the index of its
    first raw sample there, and ``length`` the number of raw samples that a window spans; 0 or 1 says that the samples
    are independent and nothing overlaps. ``notes`` are for people: what reading left out, and why; ``files`` say how each
    file was read, of a user's own data. ``interval`` is what is between two raw samples, in the unit of the data's times, ``stride``
    what is between the first raw samples of windows that were cut; None where that is not known. ``part`` [N] says what each sample is
    for, by its place in ``PARTS``, where somebody has decided that already; None where a split has to.

    Raises ``DataError``, naming the first offending row, for arrays that disagree in length, values that are not
    finite, labels that are not integers or have no class, clients without samples, an empty set or a single class.

    >>> data = Dataset(
    ...     name="toy", x=np.zeros((3, 2), np.float32), y=np.array([0, 1, 1]), client=np.array([0, 0, 1]),
    ...     client_names=("ada", "bob"), class_names=("rest", "walk"), channel_names=("a", "b"),
    ...     recording=np.arange(3), start=np.zeros(3, np.int64), length=0, licence="CC0", citation="",
    ... )
    >>> data.sample_shape
    (2,)
    >>> data.counts()
    array([[1, 1],
           [0, 1]])
    """

    name: str
    x: Array
    y: Indices
    client: Indices
    client_names: tuple[str, ...]
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    recording: Indices
    start: Indices
    length: int
    licence: str
    citation: str
    notes: tuple[str, ...] = ()
    interval: float | None = None
    stride: int | None = None
    files: tuple[SeenFile, ...] = ()
    kind: Kind = "classes"
    part: Indices | None = None

    def __post_init__(self) -> None:
        x = np.asarray(self.x)
        if x.ndim == 0 or len(x) == 0:
            raise self._error("has no samples; give at least one sample per class and client")
        if x.dtype.name not in (*STORED_DTYPES, TOKENS):
            raise self._error(
                f"x is {x.dtype}; convert it to one of {', '.join(STORED_DTYPES)}, or ids of tokens to {TOKENS}"
            )
        if x.dtype.name == TOKENS and (x.ndim != 2 or x.min(initial=0) < 0):
            raise self._error(
                f"x is {TOKENS} of shape {list(x.shape)} from {x.min(initial=0)}, and ids of tokens are [samples, tokens], 0 or more; "
                "convert measurements to float32"
            )
        if not 2 <= x.ndim <= 4 or 0 in x.shape:
            raise self._error(
                f"x has shape {list(x.shape)}; a sample is [features], [time, channels] or [channels, height, width]"
            )
        object.__setattr__(self, "x", x)
        for field in ("y", "client", "recording", "start"):
            values = self._targets(len(x)) if field == "y" and self.kind != "classes" else None
            object.__setattr__(self, field, self._integers(field, len(x)) if values is None else values)
        if self.part is not None:
            object.__setattr__(self, "part", self._integers("part", len(x)))
        for field in ("client_names", "class_names", "channel_names"):
            object.__setattr__(self, field, tuple(str(name) for name in getattr(self, field)))
        self._check_names()
        self._check_finite()

    def _error(self, problem: str) -> DataError:
        return DataError(f"data set {self.name!r}: {problem}")

    def _integers(self, field: str, samples: int) -> Indices:
        """One of the integer arrays [N] as int64, or the error that says what is wrong with it."""
        values = np.asarray(getattr(self, field))
        what = "labels" if field == "y" else field
        if values.shape != (samples,):
            raise self._error(
                f"x has {samples} samples but {field} has shape {list(values.shape)}; give one entry each"
            )
        if values.dtype.kind not in "iu":
            raise self._error(
                f"{what} must be integers; {field} is {values.dtype}, first value {values.flat[0]!s}"
            )
        values = values.astype(np.int64)
        limits = {"y": len(self.class_names), "client": len(self.client_names), "part": len(PARTS)}
        limit = limits.get(field)
        wrong = (values < 0) | (values >= limit) if limit is not None else values < 0
        if wrong.any():
            row = int(np.argmax(wrong))
            allowed = f"0..{limit - 1}" if limit is not None else "0 or more"
            raise self._error(f"{what} must be {allowed}; row {row} has {values[row]}")
        return values

    def _targets(self, samples: int) -> Array:
        """Targets [N, T] as float32, or the error that says what is wrong with them."""
        y = np.asarray(self.y, np.float32)
        if y.shape != (samples, len(self.class_names)) or not y.size:
            raise self._error(
                f"y has shape {list(y.shape)}; {samples} samples with {len(self.class_names)} class_names need [{samples}, {len(self.class_names)}]"
            )
        if not np.isfinite(y).all() or (self.kind == "labels" and not np.isin(y, (0, 1)).all()):
            raise self._error(
                f"y holds values that are not {'0 or 1' if self.kind == 'labels' else 'finite'}"
            )
        return y

    def _check_names(self) -> None:
        if self.kind == "classes" and (len(self.class_names) < 2 or len(np.unique(self.y)) < 2):
            raise self._error(
                "holds fewer than two classes; there is nothing to learn, add samples of another class"
            )
        for what, names in (
            ("client", self.client_names),
            ("class", self.class_names),
            ("channel", self.channel_names),
        ):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                raise self._error(f"the {what} name {twice[0]!r} appears twice; make the names unique")
        counts = np.bincount(self.client, minlength=len(self.client_names))
        if (counts == 0).any():
            empty = self.client_names[int(np.argmin(counts))]
            raise self._error(f"client {empty!r} has no samples; leave it out")
        channels = self.x.shape[channel_axis(self.x.ndim - 1) + 1]
        if len(self.channel_names) != channels:
            raise self._error(
                f"x has {channels} channels but there are {len(self.channel_names)} channel_names"
            )
        if self.length < 0:
            raise self._error(f"length must be 0 or more, not {self.length}")

    def _check_finite(self) -> None:
        if self.x.dtype.kind != "f":
            return
        good = np.isfinite(self.x)
        if not good.all():
            row = int(np.argmin(good.reshape(len(self.x), -1).all(axis=1)))
            bad = int(good.size - np.count_nonzero(good))
            raise self._error(
                f"x holds {bad} values that are NaN or infinite, first in row {row}; repair or leave out"
            )

    @property
    def tokens(self) -> bool:
        """Whether samples are ids of tokens."""
        return self.x.dtype.name == TOKENS

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    def counts(self) -> Indices:
        """Samples per client and class, or label, [clients, classes]; of numbers samples alone, in each column."""
        table = np.zeros((len(self.client_names), len(self.class_names)), np.int64)
        if self.kind == "classes":
            np.add.at(table, (self.client, self.y), 1)
        else:
            there = self.y if self.kind == "labels" else np.ones_like(self.y)
            np.add.at(table, self.client, there.astype(np.int64))
        return table

    def strata(self) -> Indices:
        """What samples are divided by where clients are made of a data set [N]: their class; the set of their labels; or which tenth their
        first quantity is in.
        """
        if self.kind == "classes":
            return self.y
        if self.kind == "labels":
            return np.unique(self.y, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        first = self.y[:, 0]
        return np.searchsorted(np.quantile(first, _TENTHS), first, side="right").astype(np.int64)

    def take(self, rows: npt.ArrayLike) -> Dataset:
        """The data set of these ``rows`` [n] alone; clients left without samples go, classes stay.

        Raises ``DataError`` when what is left is no data set.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) == 0:
            raise self._error("no samples are left of it after selecting; choose more")
        kept, client = np.unique(self.client[rows], return_inverse=True)
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            client=client.astype(np.int64),
            client_names=tuple(self.client_names[int(k)] for k in kept),
            recording=self.recording[rows],
            start=self.start[rows],
            part=None if self.part is None else self.part[rows],
        )
