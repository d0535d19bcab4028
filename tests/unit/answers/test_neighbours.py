"""Answers by the nearest of a client's samples, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from fedali.answers.neighbours import NEIGHBOURS, SHARES, Memory, answered, chosen

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("count", [40, 4])
def test_memories_are_a_weighted_vote_of_the_nearest(count):
    known, labels = RNG.standard_normal((count, 3)).astype(np.float32), RNG.choice([0, 2], count)
    asked = RNG.standard_normal((30, 3)).astype(np.float32)
    labels[:2] = 0, 2
    reference = KNeighborsClassifier(min(NEIGHBOURS, count), weights=lambda d: np.exp(-d))
    expected = reference.fit(known.astype(float), labels).predict_proba(asked.astype(float))
    found = Memory(known, labels, 4)(asked)
    np.testing.assert_allclose(found[:, [0, 2]], expected, atol=1e-6)
    np.testing.assert_array_equal(found[:, [1, 3]], 0)  # a class that the client lacks


def test_far_away_the_nearest_still_vote():
    found = Memory(np.zeros((2, 2)), np.array([1, 0]), 2)(np.full((1, 2), 1e4))
    np.testing.assert_allclose(found, [[0.5, 0.5]])
    assert Memory(np.zeros((2, 2)), np.array([1, 0]), 2)(np.zeros((0, 2))).shape == (0, 2)


def test_a_client_takes_the_share_that_is_best_and_of_equals_the_least():
    near, shared = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.37, 0.63], [0.2, 0.8]])
    assert (
        chosen(near, shared, np.array([0, 1])) == 0.3
    )  # the first is right from 0.9 a + 0.37 (1 - a) > 0.5 on
    assert chosen(near, shared, np.array([1, 1])) == 0.0
    assert SHARES[0] == 0
    assert SHARES[-1] == 1
    np.testing.assert_allclose(answered(0.5, near, shared), (near + shared) / 2)
