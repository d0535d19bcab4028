"""How much clients may weigh."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedali.cohort.weights import Weights, only, weights_of

CLAIMS = st.dictionaries(st.integers(0, 30), st.integers(0, 10**9), min_size=1, max_size=12)


def test_without_a_bound_everybody_weighs_what_it_says():
    assert weights_of({0: 1, 1: 10**9}, 0) == Weights()
    assert Weights().of(1, 10**9) == 10**9


def test_who_claims_a_billion_weighs_ten_times_the_median_device():
    honest = {0: 180, 1: 220, 2: 240, 3: 310}
    weights = weights_of({**honest, 4: 10**9}, 10)
    assert [weights.of(number, count) for number, count in honest.items()] == [180, 220, 240, 310]
    assert weights.of(4, 10**9) == 2400
    assert weights.of(77, 10**9) == 2400  # one that nobody heard of before


def test_of_two_devices_neither_lifts_its_own_bound():
    assert weights_of({0: 100, 1: 10**9}, 10).of(1, 10**9) == 1000


def test_a_device_that_says_much_more_than_before_weighs_ten_times_what_it_said():
    weights = weights_of({0: 5, 1: 300, 2: 400}, 10)
    assert (weights.of(0, 40), weights.of(0, 2500)) == (40, 50)
    assert weights.of(1, 2500) == 2500
    assert only(weights, {1, 2}) == Weights(3000)  # another site does not learn of it


def test_where_nobody_said_anything_there_is_no_bound():
    weights = weights_of({0: 0, 1: 0}, 10)
    assert [weights.of(0, 50), weights.of(1, 10**9)] == [50, 10**9]


@given(CLAIMS, st.data())
def test_knowing_fewer_devices_never_makes_the_bound_smaller(claims, data):
    """As long as half of them are known: a race at the start of a run changes nothing for honest devices."""
    told = {number: count for number, count in claims.items() if count > 0}
    if not told:
        return
    kept = data.draw(st.sets(st.sampled_from(sorted(told)), min_size=(len(told) + 1) // 2))
    seen = {number: count if number in kept else 0 for number, count in told.items()}
    assert weights_of(seen, 10).most >= weights_of(told, 10).most


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.floats(1, 100))
def test_who_has_no_more_than_so_many_times_the_median_weighs_all_of_it(counts, times):
    weights = weights_of(dict(enumerate(counts)), times)
    median = sorted(counts)[(len(counts) - 1) // 2]
    for number, count in enumerate(counts):
        expected = min(count, int(times * median))
        assert weights.of(number, count) == expected


def test_federations_of_the_built_in_scenarios_are_not_bounded():
    """The sizes of clients of digits, 20 by Dirichlet 0.1, and of MotionSense's people: at most 2.4 times the median."""
    digits = [19, 19, 19, 20, 21, 22, 25, 27, 41, 41, 42, 46, 53, 54, 58, 63, 69, 69, 97, 98]
    weights = weights_of(dict(enumerate(digits)), 10)
    np.testing.assert_array_equal([weights.of(n, count) for n, count in enumerate(digits)], digits)
