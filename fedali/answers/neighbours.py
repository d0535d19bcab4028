"""Neighbours: kNN-Per (Marfoq et al., ICML 2022, arXiv 2111.09360), local memorisation beside the shared model.

A client keeps the embeddings z_i of its training samples under the shared model, and their labels. For a sample with embedding z

    p(y) = a q(y) + (1 - a) shared(y),      q(y) = sum over the k nearest with y_i = y of exp(-||z - z_i||), made to sum to 1

(equations 7, 8), k = 10. Each client takes the a that is best on its validation samples; of equal ones the smaller: nearer to what everybody
shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers.gate import mixed

Array = npt.NDArray[np.floating[Any]]

NEIGHBOURS = 10
SHARES = tuple(step / 10 for step in range(11))


@dataclass(frozen=True, eq=False)
class Memory:
    """What a client remembers.

    Args:
        embeddings: of its training samples [n, d], n > 0.
        labels: of them [n].
        classes: how many there are.
    """

    embeddings: Array
    labels: npt.NDArray[np.integer[Any]]
    classes: int

    def __call__(self, embeddings: Array) -> Array:
        """Probabilities [m, classes] by the nearest samples, for embeddings [m, d]; float64."""
        x, known = np.asarray(embeddings, np.float64), np.asarray(self.embeddings, np.float64)
        squared = (x * x).sum(1)[:, None] - 2 * x @ known.T + (known * known).sum(1)[None]
        near = np.argsort(squared, axis=1, kind="stable")[:, :NEIGHBOURS]
        distance = np.sqrt(np.maximum(np.take_along_axis(squared, near, 1), 0.0))
        weights = np.exp(
            distance.min(1, keepdims=True, initial=np.inf) - distance
        )  # the same shares, none of them 0/0
        found = np.zeros((len(x), self.classes))
        np.add.at(found, (np.arange(len(x))[:, None], self.labels[near]), weights)
        shares: Array = found / found.sum(1, keepdims=True)
        return shares


def chosen(near: Array, shared: Array, labels: npt.NDArray[np.integer[Any]]) -> float:
    """The a of a client, from probabilities [n, classes] of both on its validation samples with ``labels`` [n]."""
    right = [np.mean(answered(a, near, shared).argmax(1) == labels) for a in SHARES]
    return SHARES[int(np.argmax(right))]


def answered(a: float, near: Array, shared: Array) -> Array:
    """Probabilities [n, classes] of both, those of the memory by ``a``."""
    return mixed(np.full(len(near), a), near, shared)
