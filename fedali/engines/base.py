"""What an engine is: it trains clients and predicts with their models; everything else is the site's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedali.alp import Matcher
from fedali.data import Normalisation

Vector = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[Any]  # classes [n] int64, or targets [n, T]: see fedali.targets

COHORT_SIZE = 32  # where more at once gain nothing


@dataclass(frozen=True)
class Samples:
    """Samples [n, *shape] as stored (float16, uint8, ...), labels [n] or targets [n, T], and how a batch of them is normalised."""

    x: npt.NDArray[Any]
    y: Labels
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, where: npt.NDArray[np.int64] | slice) -> npt.NDArray[Any]:
        """Normalised float32 samples; the bits of ``normalisation``, several times faster. Ids of tokens as they are."""
        chosen = np.ascontiguousarray(self.x[where])
        if chosen.dtype == np.int64:
            return chosen
        mean, std = self._statistics
        if chosen.dtype != np.float16:
            return self.normalisation(chosen)
        x: npt.NDArray[np.float32] = torch.from_numpy(chosen).to(torch.float32).numpy()
        x -= mean
        x /= std
        return x

    @cached_property
    def _statistics(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Mean and standard deviation in the shape of a sample: broadcasting over its inner axes is slow."""
        shape = self.x.shape[1:]
        mean, std = (
            np.ascontiguousarray(np.broadcast_to(part, shape))
            for part in (self.normalisation.mean, self.normalisation.std)
        )
        return mean, std


@dataclass(frozen=True)
class TrainJob:
    """One client's local training in one round.

    Args:
        samples: its training data.
        theta: the client's vector [P] to start from, see ``fedali.slots``.
        local_prototypes: [L] to start from.
        shared_theta: [P] of the server.
        shared_prototypes: [L] of the server.
        influence: of the ALP layers this round.
        seed: everything random about this job, from ``numpy.random.SeedSequence``.
        factor: of the optimizer's learning rate this round; the same for all jobs of a round.
    """

    samples: Samples
    theta: Vector
    local_prototypes: Vector
    shared_theta: Vector
    shared_prototypes: Vector
    influence: float
    seed: np.random.SeedSequence
    factor: float = 1.0


@dataclass(frozen=True)
class TrainResult:
    """A client's new theta [P] and local prototypes [L]; mean loss and accuracy over its last epoch, or what else the task counts."""

    theta: Vector
    local_prototypes: Vector
    loss: float
    accuracy: float
    occupancy: Vector | None = None


@dataclass(frozen=True)
class Query:
    """Predictions of one model, its parameters alone as theta [M], for several sets of samples.

    ``matcher`` is the ALP layers' at inference: ``cosine`` sees each sample alone, ``ot`` a batch at a time.
    """

    theta: Vector
    prototypes: Vector
    samples: tuple[Samples, ...]
    influence: float
    matcher: Matcher | None = "cosine"


class Engine(Protocol):
    """Trains clients and predicts with models, in whatever way is fast on this machine; results in order."""

    @property
    def cohort_size(self) -> int:
        """How many clients a site should give at once; their trained models are in memory together."""
        ...

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Train each client of ``jobs``."""
        ...

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """What is said, as ``Task.predict`` gives it, one array for each set of samples of each query."""
        ...
