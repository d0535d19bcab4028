"""The gate and what lies between two models, against what they have to be on problems whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.answers.between import POINTS, chosen, model_at
from fedali.answers.gate import Gate, aligned, centres, middle, mixed, probabilities, scores


def blobs(middles, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([m + 0.01 * rng.normal(size=(count, len(m))) for m in np.asarray(middles, float)])


MIDDLES = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


def test_centres_are_the_middles_of_what_lies_together():
    found = centres(blobs(MIDDLES, 50), 4, seed=1)
    order = [int(((found - m) ** 2).sum(1).argmin()) for m in MIDDLES]
    assert sorted(order) == [0, 1, 2, 3]
    for k, blob in zip(order, np.split(blobs(MIDDLES, 50), 4), strict=True):
        np.testing.assert_allclose(found[k], blob.mean(0), atol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_few_embeddings_are_their_own_centres(count):
    points = np.random.default_rng(0).normal(size=(count, 3))
    found = centres(points, 7, seed=0)
    assert found.shape == (7, 3)
    assert {row.tobytes() for row in found} == {row.tobytes() for row in points}


def test_the_same_seed_gives_the_same_centres():
    points = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    assert np.array_equal(centres(points, 9, 3), centres(points, 9, 3))
    assert not np.array_equal(centres(points, 9, 3), centres(points, 9, 4))


def test_a_client_speaks_for_its_own_kind_and_others_for_theirs():
    own, others = blobs(MIDDLES[:2], 40, seed=1), blobs(MIDDLES[2:], 40, seed=2)
    gate = Gate.of(centres(own, 2, 0), MIDDLES + 0.05, blobs(MIDDLES[:2], 40, seed=3))
    assert gate(own).mean() > 0.7
    assert gate(others).max() < 1e-3
    assert np.mean(gate(blobs(MIDDLES[:2], 4000, seed=4)) > 0.5) == pytest.approx(0.8, abs=0.1)


def test_the_score_is_the_logarithm_of_two_distances():
    z, own, everyone = np.array([[1.0, 0.0]]), np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[5.0, 0.0]])
    np.testing.assert_allclose(scores(z, own, everyone), [np.log(1.0) - np.log(4.0)])
    assert np.isfinite(scores(own, own, own)).all()


def test_sets_in_any_order_become_one_order():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(16, 4))
    shuffled = (reference + 0.001)[rng.permutation(16)]
    np.testing.assert_allclose(aligned(shuffled, reference), reference + 0.001)
    assert np.array_equal(aligned(shuffled, np.zeros((16, 4))), shuffled)


def test_answers_are_mixed_as_probabilities():
    mine, theirs = np.array([[100.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 100.0], [0.0, np.log(3.0)]])
    found = mixed(np.array([0.75, 0.5]), probabilities(mine), probabilities(theirs))
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.375, 0.625]])


def test_a_model_between_lies_on_the_line():
    shared, trained = np.zeros(3, np.float32), np.array([2.0, 4.0, -8.0], np.float32)
    assert model_at(0.25, trained, shared).tolist() == [0.5, 1.0, -2.0]
    assert model_at(0.25, trained, shared).dtype == np.float32


def test_few_samples_trust_everybodys_curve():
    everybody = np.array([0.5, 0.6, 0.9, 0.6, 0.5])
    odd = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    many = [everybody] * 9
    assert chosen(np.array([odd, *many]), np.array([4.0, *[400.0] * 9]))[0] == 0.5
    assert chosen(np.array([odd, *many]), np.array([4000.0, *[400.0] * 9]))[0] == 0.0
    assert chosen(np.full((2, len(POINTS)), 0.7), np.array([10.0, 20.0])) == [0.0, 0.0]


def test_the_middle_of_two_models_keeps_their_type():
    began, new = np.array([0.0, 2.0, -8.0], np.float32), np.array([2.0, 4.0, 8.0], np.float32)
    assert middle(began, new).tolist() == [1.0, 3.0, 0.0]
    assert middle(began, new).dtype == np.float32


def test_without_validation_samples_every_fifth_of_training_is_held_back():
    train, everyone = blobs(MIDDLES[:2], 40), blobs(MIDDLES, 1)
    last = np.arange(80) % 5 == 4
    held, told = Gate.made(train, train[:0], everyone), Gate.made(train[~last], train[last], everyone)
    assert (held.middle, held.spread) == (told.middle, told.spread)
    assert np.array_equal(held.own, told.own)
    few = Gate.made(train[:3], train[:0], everyone)
    assert {row.tobytes() for row in few.own} == {row.tobytes() for row in train[:3].astype(float)}


def test_who_has_no_model_of_its_own_answers_with_everybodys():
    everyone = blobs(MIDDLES, 1)
    assert Gate.closed(everyone)(blobs(MIDDLES, 5)).max() < 1e-20
