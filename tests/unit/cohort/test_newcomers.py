from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedali.cohort.newcomers import few, labelled, stream
from fedali.data import Normalisation
from fedali.engines.base import Samples


def samples(labels) -> Samples:
    """Each sample is its own number."""
    nothing = Normalisation(np.zeros(1, np.float32), np.ones(1, np.float32))
    return Samples(np.arange(len(labels), dtype=np.float32)[:, None], np.array(labels, np.int64), nothing)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 2**31))
def test_classes_take_turns(labels, count, seed):
    given_ = samples(labels)
    chosen = few(given_, count, np.random.default_rng(seed))
    numbers = chosen.x[:, 0].astype(int)
    assert len(chosen) == len(set(numbers)) == min(count, len(labels))
    assert (chosen.y == given_.y[numbers]).all()
    for label in set(labels):
        for other in set(labels):  # one has two more than another only where that has no more
            mine, theirs = (int((chosen.y == each).sum()) for each in (label, other))
            assert mine <= theirs + 1 or theirs == labels.count(other)


@given(st.lists(st.integers(0, 5), min_size=8, max_size=60), st.integers(0, 2**31))
def test_more_are_the_same_and_more(labels, seed):
    known = samples(labels)
    parts = dict(labelled(known, (0, 3, 7), stream(seed, 4), lambda asked: (asked.y + 1) % 6))
    assert list(parts) == ["after_0", "after_3", "after_7", "after"]
    np.testing.assert_array_equal(parts["after_0"].y, (known.y + 1) % 6)
    np.testing.assert_array_equal(parts["after_0"].x, known.x)
    one, two, everything = (set(parts[name].x[:, 0]) for name in ("after_3", "after_7", "after"))
    assert one < two <= everything
    assert everything == set(range(len(labels)))


def test_each_client_and_seed_has_its_own():
    given_ = samples([0, 1] * 50)
    found = {
        tuple(few(given_, 6, np.random.default_rng(stream(seed, client))).x[:, 0])
        for seed in (0, 1)
        for client in (0, 1)
    }
    assert len(found) == 4
