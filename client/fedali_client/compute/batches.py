"""Batches of fixed size from samples in any order, into one place in memory; the last of an epoch is filled up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedali.data.normalisation import Normalisation

Array = npt.NDArray[Any]
Labels = npt.NDArray[Any]  # classes [n] int64, or targets [n, T] float32
Indices = npt.NDArray[np.int64]


class Order(Protocol):
    """The order of a fit's samples in each epoch: the same whenever it is asked for, so that a fit can go on anywhere."""

    def permutation(self, epoch: int, count: int) -> Indices:
        """Indices [count] of the samples in epoch 0, 1, ..."""


@dataclass(frozen=True)
class OwnOrder:
    """A device's own: it depends on ``seed``, the number of the fit and the epoch alone."""

    seed: int
    fit: int

    def permutation(self, epoch: int, count: int) -> Indices:
        """Indices [count] of the samples in epoch 0, 1, ..."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.fit, epoch])).permutation(count)


@dataclass(frozen=True)
class RoundOrder:
    """A simulation's: one stream of random numbers from ``entropy``, and a permutation of it for each epoch in turn."""

    entropy: tuple[int, ...]

    def permutation(self, epoch: int, count: int) -> Indices:
        """Indices [count] of the samples in epoch 0, 1, ..."""
        random = np.random.default_rng(np.random.SeedSequence(self.entropy))
        for _ in range(epoch):
            random.permutation(count)
        return random.permutation(count)


@dataclass(frozen=True)
class InOrder:
    """As the samples come."""

    def permutation(self, epoch: int, count: int) -> Indices:
        """Indices [count] of the samples."""
        return np.arange(count)


class Batches:
    """Places for a batch, and what fills them.

    ``x`` [B, *shape] float32, ``y`` [B] int64, or [B, T] float32, and ``weights`` [B] float32 are the same arrays all the time.

    Args:
        size: B.
        x: samples [n, *shape] of any float or integer dtype; also a mapped file, of which a batch is read at a time.
        y: classes [n], or targets [n, T].
        normalisation: of the samples; None leaves them as they are.
    """

    def __init__(self, size: int, x: Array, y: Labels, normalisation: Normalisation | None) -> None:
        self._samples, self._labels, self._normalisation = x, y, normalisation
        self.x = np.zeros((size, *x.shape[1:]), np.float32)
        self.y = np.zeros((size, *y.shape[1:]), np.int64 if y.ndim == 1 else np.float32)
        self.weights = np.zeros(size, np.float32)
        self.per_epoch = -(-len(x) // size)
        self._permutation = np.empty(0, np.int64)
        self._epoch: tuple[Order, int] | None = None

    def fill(self, order: Order, step: int) -> int:
        """Put batch number ``step`` = 0, 1, ... of a fit in place; how many samples it has, the rest weighs 0."""
        epoch, batch = divmod(step, self.per_epoch)
        if self._epoch != (order, epoch):
            self._permutation = order.permutation(epoch, len(self._samples))
            self._epoch = order, epoch
        size = len(self.y)
        chosen = self._permutation[batch * size : (batch + 1) * size]
        count = len(chosen)
        if count < size:
            chosen = np.resize(chosen, size)
        if self._samples.dtype == self.x.dtype:
            np.take(self._samples, chosen, axis=0, out=self.x, mode="clip")
        else:
            self.x[...] = self._samples[chosen]
        if self._normalisation is not None:
            np.subtract(self.x, self._normalisation.mean, out=self.x)
            np.divide(self.x, self._normalisation.std, out=self.x)
        np.take(self._labels, chosen, axis=0, out=self.y, mode="clip")
        self.weights[:count], self.weights[count:] = 1.0, 0.0
        return count


def fingerprint(*parts: Array | str | int) -> bytes:
    """32 bytes that are the same for the same arrays (values, shapes, dtypes), words and numbers."""
    known = hashlib.blake2b(digest_size=32)
    for part in parts:
        if isinstance(part, np.ndarray):
            known.update(f"{part.dtype.str}{part.shape}".encode())
            pieces = max(1, part.nbytes >> 20)  # also of a mapped file, a megabyte at a time
            for piece in np.array_split(np.atleast_1d(part), pieces):
                known.update(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
        else:
            known.update(f"{type(part).__name__}{part!r}".encode())
    return known.digest()
