"""The gate: prototypes say of each sample whether it is one of its client's own kind.

The shared model that answers is the middle of the one that a round began with and the one that it made,

    shared = (began + new) / 2,

number by number, prototypes of ALP layers too: half of what the noise of one round moved. The personal one is halfway between that and the
client's trained one (``fedali.answers.between``). Everything that the gate looks at are embeddings z under ``shared``.

A client's own prototypes are the centres of its training samples' embeddings (k-means), made anew when it hears of a new model; everybody's are
a slot of the new state: the centres that clients sent in the round, of embeddings under ``began``, each set aligned by exact optimal transport to
the prototypes before, averaged. Then

    s(z) = log( distance to the nearest of its own / distance to the nearest of everybody's )

is low where the client knows better, and the personal model's probabilities weigh ``sigmoid((m - s) / d)``: m is the 80 % quantile of s on the
client's validation samples, so that four in five of its own kind count as its own, d their standard deviation. Who has no validation samples holds
back every fifth training sample from its centres, and takes those.

No label is used. Numpy alone: a device does what a simulation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.transport.assignment import assign
from fedali.transport.distances import squared_distances

Array = npt.NDArray[np.floating[Any]]

_QUANTILE = 0.8
_ROUNDS = 25  # of k-means, unless it rests earlier
_HELD_BACK = 5  # every fifth training sample, where there are none for validation
_NOBODY = -60.0  # a middle at which no answer is the client's own
SMALLEST = 1e-6  # of a distance, and of a spread


@dataclass(frozen=True, eq=False)
class Gate:
    """How far a client's model counts.

    Args:
        own: the client's prototypes [K, d].
        everyone: everybody's [K, d].
        middle: of s, where both answers count alike.
        spread: of s.
    """

    own: Array
    everyone: Array
    middle: float
    spread: float

    @classmethod
    def of(cls, own: Array, everyone: Array, validation: Array) -> Gate:
        """The gate of a client with the embeddings [n, d] of its validation samples, n > 0."""
        s = scores(validation, own, everyone)
        return cls(own, everyone, float(np.quantile(s, _QUANTILE)), max(float(s.std()), SMALLEST))

    @classmethod
    def made(cls, train: Array, validation: Array, everyone: Array) -> Gate:
        """The gate of a client with embeddings [n, d] of its training samples, n > 0, and of its validation samples, which may be none."""
        if not len(validation):
            last = np.arange(len(train)) % _HELD_BACK == _HELD_BACK - 1
            train, validation = (train[~last], train[last]) if last.any() else (train, train)
        return cls.of(centres(train, len(everyone)), everyone, validation)

    @classmethod
    def closed(cls, everyone: Array) -> Gate:
        """The gate of a client that has no model of its own yet: it answers with the shared one alone."""
        return cls(np.zeros_like(everyone), everyone, _NOBODY, 1.0)

    @classmethod
    def opened(cls, everyone: Array) -> Gate:
        """The gate of a client that knows nothing of others: it answers with its own model alone."""
        return cls(np.zeros_like(everyone), everyone, -_NOBODY, 1.0)

    def __call__(self, embeddings: Array) -> Array:
        """How much the client's own answer counts, 0..1, for embeddings [n, d]: [n]."""
        return self.weigh(scores(embeddings, self.own, self.everyone))

    def weigh(self, s: Array) -> Array:
        """The same for scores [n]."""
        weight: Array = 1.0 / (1.0 + np.exp(np.clip((s - self.middle) / self.spread, -60, 60)))
        return weight


def scores(embeddings: Array, own: Array, everyone: Array) -> Array:
    """S [n] of embeddings [n, d]: low for what is nearer to ``own`` [K, d] than to ``everyone`` [K', d]."""
    near, far = _nearest(embeddings, own)[0], _nearest(embeddings, everyone)[0]
    found: Array = np.log(np.maximum(near, SMALLEST)) - np.log(np.maximum(far, SMALLEST))
    return found


def mixed(weights: Array, personal: Array, shared: Array) -> Array:
    """Probabilities [n, classes] of both, the personal ones by ``weights`` [n]."""
    found: Array = weights[:, None] * personal + (1 - weights[:, None]) * shared
    return found


def probabilities(logits: Array) -> Array:
    """Softmax of logits [n, classes], in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: Array = shifted / shifted.sum(1, keepdims=True)
    return found


def middle(began: Array, new: Array) -> Array:
    """The shared model that answers, of the one that a round began with and the one that it made."""
    found: Array = (began + new) * np.asarray(0.5, new.dtype)
    return found


def centres(embeddings: Array, count: int, seed: int = 0) -> Array:
    """``count`` centres [K, d] of embeddings [n, d] by k-means, float64; of fewer embeddings than that some are there twice.

    Starts are drawn as k-means++ does (Arthur & Vassilvitskii 2007); a centre that nothing is near to stays.
    """
    points, random = np.asarray(embeddings, np.float64), np.random.default_rng(seed)
    if len(points) <= count:
        chosen = np.concatenate(
            [np.arange(len(points)), random.integers(len(points), size=count - len(points))]
        )
        few: Array = points[chosen]
        return few
    found = _starts(points, count, random)
    before = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        place = _nearest(points, found)[1]
        if (place == before).all():
            break
        before, sizes = place, np.bincount(place, minlength=count)
        sums = np.zeros_like(found)
        np.add.at(sums, place, points)
        there = sizes > 0
        found[there] = sums[there] / sizes[there, None]
    return found


def aligned(own: Array, everyone: Array) -> Array:
    """A client's prototypes [K, d] in the order of everybody's [K, d] before; as they are where there are none yet (zeros)."""
    if not everyone.any():
        return own
    rows, reference = np.asarray(own, np.float64), np.asarray(everyone, np.float64)
    found: Array = rows[assign(squared_distances(rows, reference))]
    return found


def _starts(points: Array, count: int, random: np.random.Generator) -> Array:
    chosen = [int(random.integers(len(points)))]
    near = ((points - points[chosen[0]]) ** 2).sum(1)
    for _ in range(count - 1):
        total = near.sum()
        share = near / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(random.choice(len(points), p=share)))
        near = np.minimum(near, ((points - points[chosen[-1]]) ** 2).sum(1))
    starts: Array = points[chosen]
    return starts


def _nearest(x: Array, centres_: Array) -> tuple[Array, npt.NDArray[np.intp]]:
    """Distance of each row of x [n, d] to the nearest centre, and which that is."""
    x, c = np.asarray(x, np.float64), np.asarray(centres_, np.float64)
    squared = (x * x).sum(1)[:, None] - 2 * x @ c.T + (c * c).sum(1)[None]
    place = squared.argmin(1)
    found: Array = np.sqrt(np.maximum(squared[np.arange(len(x)), place], 0.0))
    return found, place
