"""Draws of clients, each from arrays alone: the same generator, the same clients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating[Any]]

_CERTAIN = 1 - 1e-9


def by_size(sizes: npt.NDArray[Any], count: int, rng: np.random.Generator) -> tuple[Places, Numbers]:
    """Places [count], sorted, of a draw without replacement whose chances are proportional to ``sizes`` [n]; and weights [count].

    A client is drawn with a chance exactly proportional to its samples, 1 where that would be more: systematic sampling of a random order (Madow, Ann. Math. Stat. 20, 1949). Its weight is its samples over that chance (Horvitz & Thompson, JASA 47, 1952), so that the mean
    by these weights has FedAvg's mean of all clients as its expectation. Those that are not certain weigh the same: the plain average of
    scheme I of Li et al. (ICLR 2020, arXiv 1907.02189). Weights add up to all clients' samples.

    >>> places, weights = by_size(np.array([1, 1, 1, 1, 8]), 3, np.random.default_rng(0))
    >>> places.tolist(), weights.tolist()
    ([1, 2, 4], [2.0, 2.0, 8.0])
    """
    sizes = np.asarray(sizes, np.float64)
    certain = np.zeros(len(sizes), bool)
    while True:
        left, open_ = count - int(certain.sum()), np.flatnonzero(~certain)
        if left <= 0 or not len(open_):
            each = 0.0
            break
        each = float(sizes[open_].sum()) / left
        more = open_[sizes[open_] >= each * _CERTAIN]
        if not len(more):
            break
        certain[more] = True
    chosen = [np.flatnonzero(certain)]
    if left > 0 and len(open_):
        order = rng.permutation(open_)
        ends = np.cumsum(sizes[order]) / each
        chosen.append(
            order[np.minimum(np.searchsorted(ends, rng.random() + np.arange(left), "right"), len(order) - 1)]
        )
    places = np.sort(np.concatenate(chosen)).astype(np.int64)
    return places, np.maximum(sizes[places], each)


def by_loss(
    losses: Numbers, sizes: npt.NDArray[Any], count: int, candidates: int, rng: np.random.Generator
) -> Places:
    """Places [count], sorted, of the highest ``losses`` [n] among ``candidates`` that are drawn by size without replacement.

    Power-of-Choice (Cho, Wang & Joshi, AISTATS 2022, arXiv 2010.01243) with the last known loss, the paper's rpow-d: one that is not
    known is infinite. Candidates are drawn one after another, each with chances proportional to the sizes of those left, as
    exponential clocks that ring (Efraimidis & Spirakis, IPL 97, 2006).
    """
    clocks = rng.exponential(size=len(sizes)) / np.asarray(sizes, np.float64)
    some = min(max(candidates, count), len(sizes))
    drawn = np.argpartition(clocks, some - 1)[:some]
    order = np.lexsort((clocks[drawn], -losses[drawn]))
    return np.sort(drawn[order[:count]])
