"""Subtracting the mean of each channel and dividing by its standard deviation; numpy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SMALLEST_STD = 1e-6

_ROUNDING = (
    1e-13  # of a mean square: a smaller variance may be nothing but what sums of a million numbers rounded
)
_SHOWN = 10  # names in a note
_AT_ONCE = 256  # samples in float64


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Subtract ``mean``, divide by ``std``: float32 arrays that broadcast against one sample (or a batch).

    >>> Normalisation(np.float32([1.0]), np.float32([2.0]))(np.float16([[3.0]]))
    array([[1.]], dtype=float32)
    """

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]

    def __call__(self, x: Array) -> npt.NDArray[np.float32]:
        """``x`` normalised, as float32 of the same shape."""
        return (np.asarray(x, np.float32) - self.mean) / self.std


def channel_axis(sample_dimensions: int) -> int:
    """Axis of a sample that holds its channels: first for images [c, h, w], last for windows [t, c] and features [f].

    >>> channel_axis(3), channel_axis(2), channel_axis(1)
    (0, 1, 0)
    """
    return 0 if sample_dimensions == 3 else sample_dimensions - 1


def channel_shape(sample_shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of one number per channel that broadcasts against a sample.

    >>> channel_shape((128, 6)), channel_shape((3, 28, 28))
    ((6,), (3, 1, 1))
    """
    axis = channel_axis(len(sample_shape))
    return (sample_shape[axis], *(1,) * (len(sample_shape) - 1 - axis))


def channel_statistics(arrays: Sequence[Array]) -> Normalisation:
    """Mean and standard deviation per channel of all ``arrays`` [n, *shape] together, in float64 and two passes.

    A constant channel is not scaled, its deviation is 1: one that was constant in training may move a little on a device.
    """
    channels = channel_axis(arrays[0].ndim - 1) + 1
    axes = tuple(d for d in range(arrays[0].ndim) if d != channels)
    count = sum(x.size for x in arrays) // arrays[0].shape[channels]
    mean = sum(x.sum(axis=axes, keepdims=True, dtype=np.float64) for x in arrays) / count
    variance = sum(np.square(x - mean).sum(axis=axes, keepdims=True) for x in arrays) / count
    shape = channel_shape(arrays[0].shape[1:])
    std = _deviation(variance, np.square(mean) + variance)
    return Normalisation(mean.reshape(shape).astype(np.float32), std.reshape(shape).astype(np.float32))


def _deviation(variance: npt.NDArray[np.float64], power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard deviations of ``variance``, where the mean square is ``power``; 1 of what is constant."""
    constant = variance <= _ROUNDING * power
    return np.where(constant, 1.0, np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_STD))


def constant_channels(normalisation: Normalisation, arrays: Sequence[Array]) -> list[int]:
    """Channels that ``normalisation``, of all ``arrays`` [n, *shape] together, does not scale because they are constant.

    >>> x = np.array([[0.5, 1], [0.5, 3]])
    >>> constant_channels(channel_statistics([x]), [x])
    [0]
    """
    axis = channel_axis(arrays[0].ndim - 1) + 1
    found = []
    for k in np.flatnonzero(normalisation.std.ravel() == 1).tolist():
        values = [x.take(k, axis=axis) for x in arrays]
        low, high = min(float(x.min()) for x in values), max(float(x.max()) for x in values)
        if is_constant(low, high):
            found.append(k)
    return found


def is_constant(low: float, high: float) -> bool:
    """Whether values from ``low`` to ``high`` differ by no more than rounding."""
    return high - low <= 1e-5 * max(abs(low), abs(high))


def constant_note(names: Sequence[str], whose: str = "") -> list[str]:
    """For people: these channels are constant; nothing where there are none.

    >>> constant_note(["a", "b"])
    ['constant in the training samples and not scaled: a, b']
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = ", ".join(names[:_SHOWN])
    return [f"constant in the training samples{whose} and not scaled: {shown}{more}"] if names else []


@dataclass(frozen=True, eq=False)
class ChannelSums:
    """What samples add up to, channel by channel: enough for mean and standard deviation, and it adds up.

    ``count`` values of each channel, the ``sums`` [C] of them and of their ``squares`` [C], in float64.

    >>> here, there = channel_sums(np.array([[1.0], [2.0]])), channel_sums(np.array([[6.0]]))
    >>> both = add_up([here, there])
    >>> both.count, both.normalisation((1,)).mean, both.normalisation((1,)).std
    (3, array([3.], dtype=float32), array([2.1602468], dtype=float32))
    """

    count: int
    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    def constant(self) -> list[int]:
        """Channels that ``normalisation`` does not scale."""
        power = self.squares / self.count
        return np.flatnonzero(power - np.square(self.sums / self.count) <= _ROUNDING * power).tolist()

    def normalisation(self, sample_shape: Sequence[int]) -> Normalisation:
        """Mean and standard deviation for samples of this shape, those of ``channel_statistics`` up to rounding.

        A channel that varies by less than sums in float64 can tell is a constant one, which is not scaled.
        """
        mean, power = self.sums / self.count, self.squares / self.count
        shape = channel_shape(sample_shape)
        std = _deviation(power - np.square(mean), power)
        return Normalisation(mean.reshape(shape).astype(np.float32), std.reshape(shape).astype(np.float32))


def channel_sums(x: Array) -> ChannelSums:
    """Of samples ``x`` [n, *shape], n > 0, a few at a time; sums of those few are added up exactly."""
    channels = channel_axis(x.ndim - 1) + 1
    parts = []
    for first in range(0, len(x), _AT_ONCE):
        some = np.asarray(x[first : first + _AT_ONCE], np.float64)
        rows = np.ascontiguousarray(np.moveaxis(some, channels, 0)).reshape(some.shape[channels], -1)
        parts.append(ChannelSums(rows.shape[1], rows.sum(axis=1), np.square(rows).sum(axis=1)))  # pairwise
    return add_up(parts)


def add_up(parts: Sequence[ChannelSums]) -> ChannelSums:
    """All together: the same bits in whichever order, since each sum is rounded once."""
    sums, squares = (
        np.array(
            [
                math.fsum(column)
                for column in zip(*(getattr(part, name).tolist() for part in parts), strict=True)
            ]
        )
        for name in ("sums", "squares")
    )
    return ChannelSums(sum(part.count for part in parts), sums, squares)
