"""The assignment problem by shortest augmenting paths, in numpy: devices have no SciPy, and a simulation does what they do.

Jonker & Volgenant, Computing 38 (1987); the augmentation as in Crouse, IEEE TAES 52 (2016). Exact. Prototypes that only
drifted are mostly settled by column minima, before any path is sought.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedali.errors import DataError
from fedali.layout import Layout
from fedali.transport.distances import squared_distances

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def assign(costs: ArrayLike) -> Indices:
    """The row [K] of each column, one each, whose costs [K, K] add up to the least.

    Raises ``DataError`` for costs that are not square or not finite.

    >>> assign([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
    array([1, 0, 2])
    """
    matrix = np.asarray(costs, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"costs have shape {matrix.shape}, an assignment needs as many rows as columns")
    if not np.isfinite(matrix).all():
        raise DataError("costs hold NaN or infinite values; did training diverge?")
    size = len(matrix)
    u, v, row_of, column_of = _reduce(matrix)
    for row in np.flatnonzero(column_of < 0):
        _augment(int(row), matrix, u, v, row_of, column_of)
    assert (np.sort(row_of) == np.arange(size)).all()
    return row_of


def _reduce(costs: Array) -> tuple[Array, Array, Indices, Indices]:
    """Dual prices u of rows and v of columns, and the pairs that they settle: ``row_of`` and ``column_of``, -1 for none."""
    size = len(costs)
    row_of, column_of = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    v = costs.min(axis=0) if size else np.zeros(0)
    reduced = costs - v
    u = reduced.min(axis=1) if size else np.zeros(0)
    for row, column in np.argwhere(reduced == u[:, None]):
        if column_of[row] < 0 and row_of[column] < 0:
            column_of[row], row_of[column] = column, row
    return u, v, row_of, column_of


def _augment(first: int, costs: Array, u: Array, v: Array, row_of: Indices, column_of: Indices) -> None:
    """Give row ``first`` a column, moving others along the shortest path to a free one; all arguments but costs change."""
    size = len(costs)
    shortest = np.full(size, np.inf)  # of a path to each column
    before = np.full(size, -1, np.int64)  # the row that path comes from
    open_ = np.ones(size, bool)
    seen_rows = [first]
    row, length, end = first, 0.0, -1
    while end < 0:
        through = length + costs[row] - u[row] - v
        better = open_ & (through < shortest)
        shortest[better], before[better] = through[better], row
        column = int(np.argmin(np.where(open_, shortest, np.inf)))
        length = float(shortest[column])
        open_[column] = False
        if row_of[column] < 0:
            end = column
        else:
            row = int(row_of[column])
            seen_rows.append(row)
    u[first] += length
    others = np.array(seen_rows[1:], np.int64)
    u[others] += length - shortest[column_of[others]]
    closed = ~open_
    v[closed] -= length - shortest[closed]
    while True:
        row = int(before[end])
        row_of[end] = row
        column_of[row], end = end, int(column_of[row])
        if row == first:
            return


def align(local: NDArray[np.float32], reference: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """One set of local prototypes [L] in the order of the reference set [L], layer by layer.

    Exact optimal transport of equal sizes and masses is a permutation: what ``fedali.transport.plans.ot_align`` gives.
    Raises ``DataError`` for prototypes that are not finite.
    """
    aligned = np.empty_like(local)
    ours, theirs, found = layout.unflatten(local), layout.unflatten(reference), layout.unflatten(aligned)
    for name, rows in ours.items():
        costs = squared_distances(rows.astype(np.float64), theirs[name].astype(np.float64))
        found[name][...] = rows[assign(costs)]
    return aligned
