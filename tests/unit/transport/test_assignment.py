"""The solver of the assignment problem in numpy against SciPy's, and its alignment against the server's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import linear_sum_assignment

from fedali.errors import DataError
from fedali.layout import Layout
from fedali.transport.assignment import align, assign
from fedali.transport.plans import ot_align

SQUARES = st.integers(0, 9).flatmap(
    lambda size: arrays.arrays(
        np.float64,
        (size, size),
        elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
    )
)


def _costs_as_little_as_scipys(costs):
    rows = assign(costs)
    size = len(costs)
    assert (np.sort(rows) == np.arange(size)).all()
    best = costs[linear_sum_assignment(costs)].sum()
    assert costs[rows, np.arange(size)].sum() == pytest.approx(best, rel=1e-12, abs=1e-9)


@given(SQUARES)
def test_any_small_matrix_with_ties_too(costs):
    _costs_as_little_as_scipys(costs)


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_sizes_of_prototype_sets(size):
    rng = np.random.default_rng(size)
    _costs_as_little_as_scipys(rng.random((size, size)))
    _costs_as_little_as_scipys(rng.integers(0, 5, (size, size)).astype(float))


def test_costs_that_say_nothing_or_all_the_same():
    rng = np.random.default_rng(0)
    for costs in (
        np.zeros((64, 64)),
        np.full((64, 64), 7.0),
        np.repeat(rng.random((8, 64)), 8, axis=0),  # rows that are there twice and more
        np.repeat(rng.random((64, 8)), 8, axis=1),
        np.outer(rng.random(64), rng.random(64)),  # one direction alone
        np.where(rng.random((64, 64)) < 0.05, 0.0, 1e12),
        rng.random((64, 64)) * 1e-12,
    ):
        _costs_as_little_as_scipys(costs)


def test_aligned_sets_are_the_servers():
    rng = np.random.default_rng(0)
    layout = Layout.of({"alp.0": (64, 128), "alp.1": (48, 16)})
    reference = rng.standard_normal(layout.size).astype(np.float32)
    for drift in (0.0, 0.1, 0.7, 3.0):
        moved = {
            name: rows[rng.permutation(len(rows))] + drift * rng.standard_normal(rows.shape)
            for name, rows in layout.unflatten(reference).items()
        }
        local = layout.flatten(moved)
        theirs = {
            name: ot_align(rows, layout.unflatten(reference)[name])
            for name, rows in layout.unflatten(local).items()
        }
        assert (align(local, reference, layout) == layout.flatten(theirs)).all()


def test_no_prototypes_need_no_alignment():
    assert align(np.empty(0, np.float32), np.empty(0, np.float32), Layout.of({})).shape == (0,)


@pytest.mark.parametrize("costs", [np.zeros((2, 3)), np.zeros(3), np.array([[np.nan, 0], [0, 0]])])
def test_what_is_no_assignment_is_refused(costs):
    with pytest.raises(DataError, match="costs"):
        assign(costs)
