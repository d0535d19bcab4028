"""The few tests that a comparison of methods needs; all are two-sided. Nothing here knows what a method is.

References:
    Nadeau & Bengio, Inference for the generalization error, Machine Learning 52, 2003: the corrected t.
    Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945; Pratt, JASA 54, 1959: zeros.
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006: which of them when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
ALPHA = 0.05
_DIGITS = 10  # decimals: two accuracies that are equal but for the last bits of a mean are equal


class Mean(NamedTuple):
    """A mean, half the width of its 95 % interval, and p of its being 0; NaN where they cannot be known."""

    mean: float
    half: float
    p: float


def t_mean(values: Sequence[float] | npt.NDArray[np.float64], ratio: float = 0.0) -> Mean:
    """Student's t of values [n]; NaNs are left out.

    Args:
        values: one a seed.
        ratio: test samples by training samples, where each seed splits the same data anew: the variance of the mean is taken as
            ``(1/n + ratio)`` times that of the values (Nadeau & Bengio), since such splits share most of their samples. 0: plain.

    Where all values are the same there is nothing to judge a difference by: interval and p are NaN, or 0 and 1 where they are all 0.

    >>> mean, half, p = t_mean([1.0, 2.0, 3.0])
    >>> round(mean, 3), round(half, 3), round(p, 3)
    (2.0, 2.484, 0.074)
    """
    known = _known(values)
    if not known.size:
        return Mean(math.nan, math.nan, math.nan)
    mean, n = float(known.mean()), known.size
    variance = float(known.var(ddof=1)) if n > 1 else 0.0
    if variance == 0:
        return Mean(0.0, 0.0, 1.0) if n > 1 and mean == 0 else Mean(mean, math.nan, math.nan)
    error = math.sqrt((1 / n + ratio) * variance)
    return Mean(
        mean,
        error * float(stats.t.ppf((1 + LEVEL) / 2, n - 1)),
        2 * float(stats.t.sf(abs(mean) / error, n - 1)),
    )


def signed_rank(differences: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """P of Wilcoxon's signed-rank test of differences [n], one a block; NaNs are left out, zeros ranked with the rest (Pratt).

    Exact for up to 50 blocks without ties and zeros, and for up to 13 with them; the normal approximation otherwise. 1 where
    nothing differs, NaN without differences.

    >>> round(signed_rank([1, 2, 3, 4, 5, 6]), 5)
    0.03125
    """
    known = _known(differences)
    if not known.size:
        return math.nan
    if not known.any():
        return 1.0
    return float(stats.wilcoxon(known, zero_method="pratt").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family; NaNs stay, and do not count.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted = list(p)
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def gini(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """How unevenly values of at least 0 are spread: 0 where all are the same, near 1 where one has everything; NaNs are left out.

    Half the mean difference between two of them, by their mean.

    >>> gini([1.0, 1.0]), gini([0.0, 1.0])
    (0.0, 0.5)
    """
    known = np.sort(_known(values))
    n = known.size
    if not n:
        return math.nan
    total = float(known.sum())
    if total == 0:
        return 0.0
    return max(0.0, float((2 * np.arange(1, n + 1) - n - 1) @ known / (n * total)))


def _known(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    return np.round(found[~np.isnan(found)], _DIGITS)
