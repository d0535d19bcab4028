"""Distances between prototypes; numpy alone, the same on servers and devices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def squared_distances(x: Array, y: Array) -> Array:
    """Squared Euclidean distances [K, K'] between rows [K, d] and [K', d], never below 0.

    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[25.,  0.]])
    """
    centre = y.mean(axis=0)  # the expanded square loses digits far from the origin
    x, y = x - centre, y - centre
    costs: Array = (-2.0 * x) @ y.T
    costs += np.square(x).sum(axis=1)[:, None]
    costs += np.square(y).sum(axis=1)
    return np.maximum(costs, 0.0, out=costs)
