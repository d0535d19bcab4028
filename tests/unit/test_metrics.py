from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from fedali.metrics import accuracy, macro_f1, spread

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@given(pairs)
def test_equals_scikit_learn(found):
    labels, predictions = np.array(found).T
    assert accuracy(labels, predictions) == pytest.approx(accuracy_score(labels, predictions))
    expected = f1_score(labels, predictions, average="macro", zero_division=0)
    assert macro_f1(labels, predictions, 6) == pytest.approx(expected)


def test_no_samples_is_nan():
    nothing = np.empty(0, np.int64)
    assert math.isnan(accuracy(nothing, nothing))
    assert math.isnan(macro_f1(nothing, nothing, 3))
    assert all(math.isnan(value) for value in spread([math.nan]))


def test_worst_decile_is_the_mean_of_the_lowest_tenth():
    values = [i / 20 for i in range(20)]
    assert spread([*values, math.nan]).worst_decile == pytest.approx((0 + 1 / 20) / 2)
    assert spread(values).mean == pytest.approx(np.mean(values))
    assert spread(values).std == pytest.approx(np.std(values))
