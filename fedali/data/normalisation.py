"""Subtracting the mean of each channel and dividing by its standard deviation; numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SMALLEST_STD = 1e-6


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
    """Mean and standard deviation per channel of all ``arrays`` [n, *shape] together, in float64 and two passes."""
    channels = channel_axis(arrays[0].ndim - 1) + 1
    axes = tuple(d for d in range(arrays[0].ndim) if d != channels)
    count = sum(x.size for x in arrays) // arrays[0].shape[channels]
    mean = sum(x.sum(axis=axes, keepdims=True, dtype=np.float64) for x in arrays) / count
    variance = sum(np.square(x - mean).sum(axis=axes, keepdims=True) for x in arrays) / count
    shape = channel_shape(arrays[0].shape[1:])
    std = np.maximum(np.sqrt(variance), SMALLEST_STD)
    return Normalisation(mean.reshape(shape).astype(np.float32), std.reshape(shape).astype(np.float32))
