from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from fedali.metrics import accuracy, area_under_curve, calibration_error, macro_f1, spread

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@given(pairs)
def test_equals_scikit_learn(found):
    labels, predictions = np.array(found).T
    assert accuracy(labels, predictions) == pytest.approx(accuracy_score(labels, predictions))
    expected = f1_score(labels, predictions, average="macro", zero_division=0)
    assert macro_f1(labels, predictions, 6) == pytest.approx(expected)


@given(st.integers(1, 80), st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_calibration_is_the_gap_of_each_bin_by_its_share(count, classes, seed, sharpness):
    random = np.random.default_rng(seed)
    said = random.dirichlet(np.full(classes, sharpness), count)
    labels = random.integers(classes, size=count)
    bins = [[] for _ in range(15)]
    for row, label in zip(said, labels, strict=True):
        bins[math.ceil(row.max() * 15) - 1].append((row.max(), row.argmax() == label))
    expected = 0.0
    for held in filter(None, bins):
        confidence, right = np.mean(held, axis=0)
        expected += len(held) / count * abs(right - confidence)
    assert calibration_error(labels, said) == pytest.approx(expected, abs=1e-12)


def test_a_confidence_on_the_border_of_two_bins_is_in_the_lower():
    said = np.array([[0.6, 0.4], [0.601, 0.399]])  # 0.6 is 9/15
    assert calibration_error(np.array([0, 1]), said) == pytest.approx((0.4 + 0.601) / 2)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60))
def test_the_area_under_the_curve_is_that_of_scikit_learn(found):
    scores, positive = np.array([s for s, _ in found]) / 8, np.array([p for _, p in found])
    if positive.all() or not positive.any():
        assert math.isnan(area_under_curve(scores, positive))
    else:
        assert area_under_curve(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_no_samples_is_nan():
    nothing = np.empty(0, np.int64)
    assert math.isnan(accuracy(nothing, nothing))
    assert math.isnan(macro_f1(nothing, nothing, 3))
    assert math.isnan(calibration_error(nothing, np.empty((0, 3))))
    assert all(math.isnan(value) for value in spread([math.nan]))


def test_worst_decile_is_the_mean_of_the_lowest_tenth():
    values = [i / 20 for i in range(20)]
    assert spread([*values, math.nan]).worst_decile == pytest.approx((0 + 1 / 20) / 2)
    assert spread(values).mean == pytest.approx(np.mean(values))
    assert spread(values).std == pytest.approx(np.std(values))
