"""Numbers that a table reports: accuracy, macro-F1 and calibration of one client, and their spread over clients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]
Array = npt.NDArray[np.floating[Any]]

_BINS = 15  # of confidence


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


def multilabel_f1(labels: Array, predictions: Array) -> tuple[float, float]:
    """Micro and macro F1 of several labels for each sample, [n, T] of 0 and 1 each, 0..1.

    Micro is of all labels of all samples together; macro is the mean over the labels that occur among either. NaN where none does. Where
    each label occurs, those of scikit-learn's ``f1_score(average="micro")`` and ``"macro"``.

    >>> multilabel_f1(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]))
    (0.8, 0.8333333333333333)
    """
    true, said = np.asarray(labels) > 0, np.asarray(predictions) > 0
    hits, both = (true & said).sum(0), true.sum(0) + said.sum(0)
    if not both.any():
        return math.nan, math.nan
    there = both > 0
    return float(2 * hits.sum() / both.sum()), float(np.mean(2 * hits[there] / both[there]))


def labels_right(labels: Array, predictions: Array) -> tuple[float, float]:
    """Share of samples all of whose labels are right (subset accuracy), and of labels that are right (1 less the Hamming loss), 0..1; of
    [n, T] of 0 and 1 each. NaN for no samples.
    """
    if not len(labels):
        return math.nan, math.nan
    right = (np.asarray(labels) > 0) == (np.asarray(predictions) > 0)
    return float(right.all(1).mean()), float(right.mean())


def r2_of(measured: Array, predictions: Array) -> Array:
    """R2, the share of the variance that is explained, of each column of [n, T]: [T]; 1 is perfect, 0 what the mean reaches, and less is
    worse. NaN for fewer than two samples, and where all are the same.
    """
    measured, found = np.asarray(measured, np.float64), np.full(np.shape(measured)[1], np.nan)
    if len(measured) < 2:
        return found
    rest = ((measured - predictions) ** 2).sum(0)
    total = ((measured - measured.mean(0)) ** 2).sum(0)
    known = total > 0
    found[known] = 1 - rest[known] / total[known]
    return found


def calibration_error(labels: Labels, probabilities: Array) -> float:
    """Expected calibration error of probabilities [n, classes], 0..1; NaN for no samples.

    Samples are put into 15 bins of equal width by their confidence, the largest probability; what is summed is the gap between a bin's
    accuracy and its mean confidence, by its share of samples (Guo et al., ICML 2017, arXiv 1706.04599, equation 3).

    >>> calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]]))
    0.4
    """
    if not len(labels):
        return math.nan
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, _BINS + 1)[1:-1], right=True)
    gaps = np.bincount(bins, weights=right - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def area_under_curve(scores: Array, positive: npt.NDArray[np.bool_]) -> float:
    """How well scores [n] tell the ``positive`` [n] from the others: the share of pairs in which the positive one has the higher score, where
    equal ones are half of one. 0.5 is chance; NaN where one of both kinds is missing.

    >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    high, low = scores[positive], np.sort(scores[~positive])
    if not (len(high) and len(low)):
        return math.nan
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.sum() / (2 * len(high) * len(low)))


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
