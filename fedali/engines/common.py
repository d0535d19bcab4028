"""What engines share: batches of fixed size, samples in order, and threads that keep the order of their jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fedali.engines.base import Labels, Samples
from fedali.step import Batch

_AHEAD = 16  # batches that are normalised at once

Job = TypeVar("Job")
Result = TypeVar("Result")


def _one_thread() -> None:
    torch.set_num_threads(1)  # the setting is each thread's own


class ClientPool:
    """``workers`` threads; with one, the work is done where its results are asked for."""

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._pool = ThreadPoolExecutor(self.workers, initializer=_one_thread) if self.workers > 1 else None

    def map(
        self,
        work: Callable[[Job], Result],
        jobs: Iterable[Job],
        cost: Callable[[Job], float] | None = None,
    ) -> Iterator[Result]:
        """The result of ``work`` on each job, in the order of the jobs.

        Jobs are taken as they are needed, a few ahead; with ``cost`` all at once, and the costliest is done first, so
        that no thread is left with a long one at the end.
        """
        if self._pool is None:
            yield from map(work, jobs)
            return
        pending: deque[Future[Result]] = deque()
        if cost is not None:
            listed = list(jobs)
            futures: dict[int, Future[Result]] = {}
            for index in sorted(range(len(listed)), key=lambda index: -cost(listed[index])):
                futures[index] = self._pool.submit(work, listed[index])
            pending.extend(futures[index] for index in range(len(listed)))
        else:
            for job in jobs:
                pending.append(self._pool.submit(work, job))
                if len(pending) > 2 * self.workers:
                    yield pending.popleft().result()
        try:
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def as_input(x: npt.NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """Samples in ``dtype``; ids of tokens as they are."""
    found = torch.from_numpy(x)
    return found.to(dtype) if found.is_floating_point() else found


def targets_of(y: Labels, dtype: torch.dtype) -> torch.Tensor:
    """Classes as they are, other targets in ``dtype``."""
    found = torch.from_numpy(y)
    return found.to(dtype) if found.is_floating_point() else found


def batches(
    samples: Samples,
    size: int,
    rng: np.random.Generator,
    sizes: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """One epoch in random order; the last batch is filled up with samples of weight 0.

    Args:
        samples: of one client.
        size: samples in a batch.
        rng: of the order.
        sizes: what a batch may be filled up to, descending, ``size`` first: the last batch takes the smallest that
            holds it. None is ``size`` alone.
        dtype: of samples and weights.
    """
    order = rng.permutation(len(samples))
    whole = torch.ones(size, dtype=dtype)
    for first in range(0, len(order), size * _AHEAD):
        part = order[first : first + size * _AHEAD]
        x, y = as_input(samples.batch(part), dtype), targets_of(samples.y[part], dtype)
        for start in range(0, len(part), size):
            count = min(size, len(part) - start)
            if count == size:
                yield Batch(x[start : start + size], y[start : start + size], whole)
                continue
            full = min(allowed for allowed in sizes or (size,) if allowed >= count)
            filled = torch.from_numpy(np.resize(np.arange(start, start + count), full))
            weights = torch.zeros(full, dtype=dtype)
            weights[:count] = 1.0
            yield Batch(x[filled], y[filled], weights)


def sequential(samples: Samples, size: int, dtype: torch.dtype = torch.float32) -> Iterator[Batch]:
    """All samples once, in order, in batches of ``size``; the last is filled up with samples of weight 0."""
    for start in range(0, len(samples), size):
        rows = np.arange(start, min(start + size, len(samples)))
        filled = np.resize(rows, size)
        weights = torch.zeros(size, dtype=dtype)
        weights[: len(rows)] = 1.0
        x, y = as_input(samples.batch(filled), dtype), targets_of(samples.y[filled], dtype)
        yield Batch(x, y, weights)


def in_order(sets: Sequence[Samples], size: int) -> Iterator[npt.NDArray[Any]]:
    """Normalised samples of all sets one after another, in batches that run across them."""
    waiting: list[npt.NDArray[Any]] = []
    count = 0
    for samples in sets:
        start = 0
        while start < len(samples):
            piece = samples.batch(slice(start, start + size - count))
            waiting.append(piece)
            start, count = start + len(piece), count + len(piece)
            if count == size:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
