"""Numbers that a table reports: accuracy and macro-F1 of one client, and their spread over clients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]


def accuracy(labels: Labels, predictions: Labels) -> float:
    """Share of predictions [n] that equal labels [n], 0..1; NaN for no samples."""
    return float(np.mean(labels == predictions)) if len(labels) else math.nan


def macro_f1(labels: Labels, predictions: Labels, classes: int) -> float:
    """Mean F1 over the classes that occur among labels or predictions, 0..1; NaN for no samples.

    The definition of scikit-learn's ``f1_score(average="macro", zero_division=0)``.
    """
    if not len(labels):
        return math.nan
    true = np.bincount(labels, minlength=classes)
    predicted = np.bincount(predictions, minlength=classes)
    hits = np.bincount(labels[labels == predictions], minlength=classes)
    seen = (true + predicted) > 0
    return float(np.mean(2 * hits[seen] / (true + predicted)[seen]))


class Spread(NamedTuple):
    """Mean, standard deviation (over clients, population) and mean of the worst tenth (at least one client)."""

    mean: float
    std: float
    worst_decile: float


def spread(values: Iterable[float]) -> Spread:
    """How a metric spreads over clients; NaNs are left out, no values give NaNs.

    >>> spread([0.9, 0.8, 1.0, 0.5])
    Spread(mean=0.8, std=0.18708286933869708, worst_decile=0.5)
    """
    known = np.sort([value for value in values if not math.isnan(value)])
    if not known.size:
        return Spread(math.nan, math.nan, math.nan)
    worst = known[: max(1, math.ceil(known.size / 10))]
    return Spread(float(known.mean()), float(known.std()), float(worst.mean()))
