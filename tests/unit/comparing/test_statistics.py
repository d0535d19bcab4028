"""Against textbooks, and against counting every outcome."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedali_simulations.comparing.statistics import gini, holm, signed_rank, t_mean

# Student (1908), "The probable error of a mean": additional hours of sleep by two drugs, ten patients.
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
# Hollander & Wolfe, Nonparametric Statistical Methods, table 3.1: depression before and after a tranquilizer, nine patients.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def every_sign(differences):
    """p of the signed-rank statistic over all assignments of signs to the ranks of what is not 0, zeros ranked first."""
    d = np.asarray(differences, float)
    ranks = stats.rankdata(np.abs(d))[d != 0]
    centre = ranks.sum() / 2
    seen = abs(ranks[d[d != 0] > 0].sum() - centre)
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return np.mean([abs(total - centre) >= seen - 1e-9 for total in sums])


def test_t_of_students_own_example():
    mean, half, p = t_mean(SLEEP)
    assert mean == pytest.approx(1.58)
    assert p == pytest.approx(0.002833, abs=1e-6)  # as every statistics program has it
    assert (mean - half, mean + half) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_the_corrected_t_is_nadeau_and_bengios():
    """Their equation: t with n - 1 degrees of freedom, the variance of the mean times 1/n + n2/n1."""
    d, ratio = np.array([0.02, 0.05, 0.01, 0.04, 0.03]), 0.3 / 0.5
    mean, half, p = t_mean(d, ratio)
    error = math.sqrt((1 / 5 + ratio) * np.var(d, ddof=1))
    assert p == pytest.approx(2 * stats.t.sf(0.03 / error, 4))
    assert half == pytest.approx(2.7764451 * error)
    assert p == pytest.approx(
        0.10119, abs=1e-5
    )  # t = 2.12132, from a table of t with 4 degrees of freedom: .10 < p < .11
    assert p > t_mean(d).p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert mean == pytest.approx(0.03)


def test_an_interval_covers_a_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.7, 0.05, (4000, 5))
    hits = np.mean([abs(found.mean - 0.7) <= found.half for found in map(t_mean, draws)])
    assert hits == pytest.approx(0.95, abs=0.012)


def test_the_corrected_t_holds_its_level_where_the_plain_one_does_not():
    """Seeds that share what they are tested on: differences with a correlation of ratio / (1 + ratio) and no true difference."""
    rng, seeds, ratio = np.random.default_rng(1), 5, 0.5
    shared = ratio / (1 + ratio)
    draws = rng.normal(0, math.sqrt(shared), (4000, 1)) + rng.normal(0, math.sqrt(1 - shared), (4000, seeds))
    corrected = np.mean([t_mean(d, ratio).p < 0.05 for d in draws])
    plain = np.mean([t_mean(d).p < 0.05 for d in draws])
    assert corrected == pytest.approx(0.05, abs=0.012)
    assert plain > 0.15


def test_nothing_to_judge_by():
    assert t_mean([0.0, 0.0, 0.0]) == (0, 0, 1)
    mean, half, p = t_mean([0.1, 0.1])
    assert mean == pytest.approx(0.1)
    assert math.isnan(half)
    assert math.isnan(p)
    assert all(math.isnan(value) for value in t_mean([]))
    assert math.isnan(t_mean([0.5]).half)
    assert t_mean([1.0, math.nan, 3.0]) == t_mean([1.0, 3.0])


def test_the_signed_rank_of_a_textbook():
    """Hollander & Wolfe, example 3.1: T+ = 40 of n = 9, one-sided p .0195."""
    assert signed_rank(BEFORE - AFTER) == pytest.approx(2 * 0.01953125)
    assert signed_rank(AFTER - BEFORE) == signed_rank(BEFORE - AFTER)


@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, 4, 5],
        [1, -2, 3, 4, -5, 6, 7],
        [1, 1, -1, 2, 2, 3],
        [0, 0, 1, 2, -3, 4],
        [0, 1, 1, 1, 1, 1, 1, 1],
        [0.1 + 0.2 - 0.3, 0.1, 0.2, 0.3, 0.1, -0.1],  # the first is 0 but for its last bits
    ],
)
def test_the_signed_rank_counts_every_outcome(differences):
    assert signed_rank(differences) == pytest.approx(every_sign(np.round(differences, 10)))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9), st.randoms())
def test_the_signed_rank_does_not_care_about_order_and_sign(differences, random):
    p = signed_rank(differences)
    assert 0 < p <= 1
    shuffled = list(differences)
    random.shuffle(shuffled)
    assert signed_rank(shuffled) == pytest.approx(p)
    assert signed_rank([-d for d in differences]) == pytest.approx(p)
    assert p == pytest.approx(every_sign(differences))


def test_of_nothing_nothing_follows():
    assert signed_rank([0.0] * 20) == 1
    assert math.isnan(signed_rank([]))
    assert math.isnan(signed_rank([math.nan]))


def test_holm_step_by_step():
    """The usual example of four: at .05 the first and the fourth are rejected."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03, 4 * 0.005])
    assert holm([0.03, 0.001, 0.6, 0.02, 0.9]) == pytest.approx([0.09, 0.005, 1.0, 0.08, 1.0])
    assert holm([0.5]) == [0.5]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested():
    found = holm([math.nan, 0.02, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_is_no_worse_than_bonferroni(p):
    found = holm(p)
    assert all(before <= after <= min(1, len(p) * before) for before, after in zip(p, found, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_gini_is_half_the_mean_difference_by_the_mean():
    assert gini([1, 2, 3, 4, 5]) == pytest.approx(4 / 15)
    assert gini([0.7] * 6) == 0
    assert gini([0, 0, 0, 0, 1]) == pytest.approx(0.8)
    assert gini([0.0, 0.0]) == 0
    assert math.isnan(gini([]))
    x = np.random.default_rng(2).random(30)
    assert gini(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))
