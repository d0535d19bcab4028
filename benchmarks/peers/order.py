"""What a peer trains on: a client's samples, in the order in which our engines take them, or as a ``DataLoader`` shuffles them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fedali.engines.base import Samples
from fedali.engines.common import batches, in_order

_TRAIN = 0  # what a random stream is for, see fedali.cohort.site


def order_of(seed: int, round_: int, client: int) -> np.random.Generator:
    """What our engines draw a client's order of samples from in a round (1, 2, ...): a permutation for each epoch."""
    return np.random.default_rng(np.random.SeedSequence([seed, _TRAIN, round_, client]))


class OurBatches:
    """Stands where a peer has a ``DataLoader``: each time it is gone through is our next epoch.

    Args:
        samples: of one client.
        size: samples in a batch; the last of an epoch may have fewer.
        order: see ``order_of``.
        skip: epochs that are left out first.
        dtype: of samples.
    """

    def __init__(
        self, samples: Samples, size: int, order: np.random.Generator, skip: int, dtype: torch.dtype
    ) -> None:
        self._samples, self._size, self._order, self._dtype = samples, size, order, dtype
        for _ in range(skip):
            order.permutation(len(samples))

    def __len__(self) -> int:
        return -(-len(self._samples) // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches(self._samples, self._size, self._order, dtype=self._dtype):
            there = int(batch.weights.sum())
            yield batch.x[:there], batch.y[:there]


def tensors(samples: Samples, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Pairs of a normalised sample and its label, in order, as PFLlib reads them from its files."""
    (x,) = in_order((samples,), len(samples)) if len(samples) else (np.empty((0,), np.float32),)
    return list(zip(torch.from_numpy(x).to(dtype), torch.from_numpy(samples.y), strict=True))
