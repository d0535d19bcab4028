"""The server's sums: weighted means, prototypes aligned by optimal transport, and the published k-means."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedali.errors import DataError, MissingExtraError, SettingsError
from fedali.transport.plans import Array, Cost, Solver, ot_align, transport_plan

__all__ = ["WeightedSum", "kmeans", "ot_aggregate", "ot_align", "transport_plan", "weighted_mean"]

_SETTLED = 1e-12  # of the largest coordinate: a barycentre that moves less has arrived


class WeightedSum:
    """A running sum of weight * vector in float64, and of the weights: what a site sends to the server.

    Vectors may have any one shape, e.g. [P] or [K, d]. ``WeightedSum(total, weight)`` takes up a sum that was
    received. ``add``, ``merge`` and the constructor raise ``DataError`` for values that are not finite, for
    negative weights and for shapes that differ; nothing is added then.

    >>> here, there = WeightedSum(), WeightedSum()
    >>> here.add([1.0, 2.0], 1)
    >>> there.add([4.0, 8.0], 3)
    >>> here.merge(there)
    >>> here.mean(), here.weight
    (array([3.25, 6.5 ]), 4.0)
    """

    def __init__(self, total: ArrayLike | None = None, weight: float = 0.0) -> None:
        self.total: Array | None = None
        self.weight = 0.0
        if total is not None:
            self._take(np.array(total, np.float64), weight)
        elif weight:
            raise DataError(f"a sum of weight {weight} needs its total")

    def add(self, vector: ArrayLike, weight: float) -> None:
        """Add ``weight`` * ``vector``; a float32 vector is multiplied in float64."""
        with np.errstate(invalid="ignore", over="ignore"):  # looked for below
            term: Array = np.multiply(vector, _weight(weight), dtype=np.float64)
        self._take(term, weight)

    def merge(self, other: WeightedSum) -> None:
        """Add all that ``other`` holds; the same, up to rounding, as adding its vectors here."""
        if other.total is not None:
            self._take(other.total if self.total is not None else other.total.copy(), other.weight)

    def mean(self) -> Array:
        """The weighted mean; ``DataError`` while the weights sum to zero."""
        if self.total is None or self.weight == 0:
            raise DataError("no weighted mean: nothing was added, or all weights are zero")
        return self.total / self.weight

    def _take(self, term: Array, weight: float) -> None:
        """Add an array; the first belongs to nobody else."""
        weight = _weight(weight)
        if self.total is not None and term.shape != self.total.shape:
            raise DataError(f"a vector of shape {term.shape} does not fit a sum of shape {self.total.shape}")
        if not np.isfinite(term).all():
            raise DataError(f"{np.sum(~np.isfinite(term))} of {term.size} values are NaN or infinite")
        if self.total is None:
            self.total = term
        else:
            self.total += term
        self.weight += weight


def weighted_mean(vectors: Iterable[ArrayLike], weights: Iterable[float]) -> Array:
    """Mean of ``vectors`` (each [P]) by as many ``weights``, in float64, one vector in memory at a time.

    Raises ``DataError``, naming the vector by its place, for shapes that differ, values that are not finite,
    negative weights, weights that sum to zero or are more or fewer than the vectors. FedAvg: McMahan et al.,
    AISTATS 2017, with the clients' numbers of samples as weights.

    >>> weighted_mean([[1.0, 2.0], [4.0, 8.0]], [1, 3])
    array([3.25, 6.5 ])
    """
    running = WeightedSum()
    for place, (vector, weight) in enumerate(_side_by_side(vectors, weights)):
        with _named(f"vector {place}"):
            running.add(vector, weight)
    return running.mean()


def ot_aggregate(
    client_prototypes: Iterable[ArrayLike],
    weights: Iterable[float],
    reference: ArrayLike,
    *,
    masses: Iterable[ArrayLike] | None = None,
    reference_masses: ArrayLike | None = None,
    method: Solver = "auto",
    cost: Cost = "sqeuclidean",
    regularisation: float = 0.05,
    marginal_penalty: float = 0.3,
    barycentre_iterations: int = 0,
) -> Array:
    """Mean of the clients' prototypes, each set first aligned to ``reference`` [K, d]: [K, d], float64.

    ``client_prototypes`` is [C, K, d] or yields a [K, d] a client; ``weights`` [C] weigh the clients,
    ``masses`` [C, K] the prototypes within a client (``None``: uniform), ``reference_masses`` [K] those of
    the reference. A client of weight zero is left out. The other options are those of ``ot_align``.

    With ``barycentre_iterations`` = 0 every client is aligned to the same reference and needs no other, so
    aligning commutes with summing: sites may align and pre-sum their clients (``WeightedSum``), and clients
    stream. Each further iteration re-aligns all to the mean of the one before, at most so many times, until
    it rests: the fixed point of a free-support Wasserstein barycentre (Cuturi & Doucet, ICML 2014;
    Alvarez-Esteban et al., JMAA 2016). That needs all clients in one place and in memory: no pre-summing.

    Raises ``DataError`` naming the client at fault, and what ``ot_align`` raises.

    >>> reference = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> ot_aggregate([reference, reference[::-1] + 0.5], [1, 3], reference)
    array([[0.375, 0.375],
           [1.375, 0.375]])
    """
    if barycentre_iterations < 0:
        raise SettingsError(f"barycentre_iterations is {barycentre_iterations}, it must be 0 or more")
    columns = (client_prototypes, weights) if masses is None else (client_prototypes, weights, masses)
    clients: Iterable[tuple[Any, ...]] = _side_by_side(*columns)
    if barycentre_iterations:
        clients = list(clients)
    estimate = np.asarray(reference, np.float64)
    for _ in range(1 + barycentre_iterations):
        running = WeightedSum()
        for place, (prototypes, weight, *mass) in enumerate(clients):
            with _named(f"client {place}"):
                if _weight(weight):
                    aligned = ot_align(
                        prototypes,
                        estimate,
                        weights=mass[0] if mass else None,
                        reference_weights=reference_masses,
                        method=method,
                        cost=cost,
                        regularisation=regularisation,
                        marginal_penalty=marginal_penalty,
                    )
                    running.add(aligned, weight)
        before, estimate = estimate, running.mean()
        if np.abs(estimate - before).max() <= _SETTLED * np.abs(estimate).max():
            break
    return estimate


def kmeans(
    client_prototypes: Iterable[ArrayLike], weights: Iterable[float], *, keep_size: bool = False
) -> Array:
    """The published aggregation: k-means over all clients' prototypes [C, K, d] from their mean: [K', d].

    ``sklearn.cluster.KMeans`` over the C * K rows, in their own precision, from the index-wise mean [K, d]
    weighted by ``weights`` [C], one initialisation; each output row is the mean, in float64, of one label's
    members, in ascending label order. As published, ``weights`` enter the start only: the means are plain.

    Where rows repeat there can be fewer labels than K. The published code then returns fewer rows; so does
    this, unless ``keep_size``: then row j is always label j's, [K, d], and a label without members keeps its
    starting row, which is what a layer with K prototypes can use.

    Raises ``DataError`` as ``weighted_mean`` does, ``MissingExtraError`` without scikit-learn.

    >>> kmeans([[[0.0], [4.0]], [[1.0], [5.0]], [[9.0], [0.5]]], [1, 1, 0])
    array([[0.5],
           [6. ]])
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "server") from error
    sets = [np.asarray(one) for one in client_prototypes]
    start = weighted_mean(sets, weights)
    if start.ndim != 2:
        raise DataError(f"each client's prototypes must be [K, d], they have shape {start.shape}")
    rows: NDArray[Any] = np.concatenate(sets)
    if rows.dtype != np.float32:
        rows = rows.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than K: documented above
        found = KMeans(len(start), init=start.astype(rows.dtype), n_init=1, random_state=0).fit(rows)
    labels = cast("NDArray[np.int32]", found.labels_)
    means = {label: rows[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)}
    if keep_size:
        return np.stack([means.get(label, row) for label, row in enumerate(start)])
    return np.stack(list(means.values()))


def _weight(weight: float) -> float:
    if not 0 <= weight < np.inf:
        raise DataError(f"a weight is {weight}, it must be finite and >= 0")
    return float(weight)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{what}: {error}") from error


def _side_by_side(*columns: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Like ``zip``, but ``DataError`` when one ends before the others."""
    end = object()
    for place, row in enumerate(zip_longest(*columns, fillvalue=end)):
        if any(value is end for value in row):
            raise DataError(f"vectors, weights or masses differ in number: one of them ends after {place}")
        yield row
