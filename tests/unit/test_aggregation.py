"""The server's sums: against recorded vectors of the published code, POT's barycentre, and plain numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.aggregation import WeightedSum, kmeans, ot_aggregate, ot_align, weighted_mean
from fedali.errors import DataError, MissingExtraError, SettingsError
from tests.conftest import golden

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 8)
quick = settings(deadline=None, max_examples=30)
CASES = golden("server")


def _clients(seed: int, clients: int, size: int, dim: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prototypes [C, K, d] in generic positions, weights [C] and a reference [K, d]."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(clients, size, dim)),
        rng.uniform(1, 400, clients),
        rng.normal(size=(size, dim)),
    )


def _by_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T[::-1])]


# Weighted sums


@quick
@given(SEEDS, SIZES, st.integers(1, 20))
def test_the_mean_is_the_weighted_mean(seed, clients, size):
    vectors, weights, _ = _clients(seed, clients, size, 1)
    vectors = vectors[..., 0]
    expected = np.average(vectors, axis=0, weights=weights)
    np.testing.assert_allclose(weighted_mean(iter(vectors), iter(weights)), expected, rtol=1e-12, atol=1e-14)


@quick
@given(SEEDS, st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_merged_sites_equal_everything_at_once(seed, sites):
    vectors, weights, _ = _clients(seed, sum(sites) + 1, 7)
    at_once, server = WeightedSum(), WeightedSum()
    for vector, weight in zip(vectors, weights, strict=True):
        at_once.add(vector, weight)
    start = 0
    for many in (*sites, 1):
        site = WeightedSum()
        for client in range(start, start + many):
            site.add(vectors[client], weights[client])
        # half of them as they would come off the wire
        server.merge(site if many % 2 or site.total is None else WeightedSum(site.total, site.weight))
        start += many
    assert server.weight == pytest.approx(at_once.weight, rel=1e-14)
    np.testing.assert_allclose(server.mean(), at_once.mean(), rtol=0, atol=1e-12)


def test_sums_are_float64_for_float32_vectors():
    tenth = np.full(3, 0.1, np.float32)
    mean = weighted_mean([tenth] * 1000, [1 / 3] * 1000)
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, np.float64(np.float32(0.1)), rtol=1e-13)


def test_a_sum_shares_no_memory_with_what_was_added():
    vector, first, second = np.ones(2), WeightedSum(), WeightedSum()
    first.add(vector, 1)
    second.merge(first)
    second.add(vector, 1)
    received = WeightedSum(vector, 1)
    received.add(vector, 1)
    np.testing.assert_array_equal(vector, 1)
    np.testing.assert_array_equal(first.mean(), 1)
    np.testing.assert_array_equal(second.total, 2)


def test_a_weight_of_zero_adds_nothing():
    np.testing.assert_array_equal(weighted_mean([[1.0], [7.0]], [2, 0]), [1.0])


@pytest.mark.parametrize(
    ("vectors", "weights", "message"),
    [
        ([], [], "no weighted mean: nothing was added"),
        ([[1.0], [2.0]], [0, 0], "all weights are zero"),
        ([[1.0], [2.0]], [1, -1], r"vector 1: a weight is -1, it must be finite and >= 0"),
        ([[1.0]], [np.nan], "vector 0: a weight is nan"),
        ([[1.0]], [np.inf], "vector 0: a weight is inf"),
        ([[1.0, 2.0], [np.nan, 2.0]], [1, 1], "vector 1: 1 of 2 values are NaN or infinite"),
        ([[np.inf]], [0], "vector 0: 1 of 1 values are NaN or infinite"),
        (
            [[1.0, 2.0], [1.0]],
            [1, 1],
            r"vector 1: a vector of shape \(1,\) does not fit a sum of shape \(2,\)",
        ),
        ([[1.0], [2.0]], [1], "differ in number: one of them ends after 1"),
        ([[1.0]], [1, 2], "differ in number: one of them ends after 1"),
    ],
)
def test_bad_vectors_and_weights_are_named(vectors, weights, message):
    with pytest.raises(DataError, match=message) as caught:
        weighted_mean(vectors, weights)
    assert "\n" not in str(caught.value)


def test_a_refused_vector_leaves_the_sum_as_it_was():
    running = WeightedSum([2.0, 4.0], 2)
    for vector, weight in (([np.nan, 1.0], 1), ([1.0], 1), ([1.0, 1.0], -1)):
        with pytest.raises(DataError):
            running.add(vector, weight)
    np.testing.assert_array_equal(running.mean(), [1.0, 2.0])
    for wrong in (WeightedSum([1.0], 1), WeightedSum([1.0, 2.0, 3.0], 1)):
        with pytest.raises(DataError, match="does not fit a sum"):
            running.merge(wrong)
    with pytest.raises(DataError, match="a sum of weight 3 needs its total"):
        WeightedSum(weight=3)
    with pytest.raises(DataError, match="1 of 2 values"):
        WeightedSum([np.inf, 0.0], 1)


# Optimal transport


@quick
@given(SEEDS, SIZES, SIZES)
def test_permuting_a_clients_prototypes_changes_nothing(seed, clients, size):
    prototypes, weights, reference = _clients(seed, clients, size)
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rows[rng.permutation(size)] for rows in prototypes])
    for iterations in (0, 3):
        first, second = (
            ot_aggregate(rows, weights, reference, barycentre_iterations=iterations)
            for rows in (prototypes, shuffled)
        )
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


@quick
@given(SEEDS, SIZES, SIZES, st.integers(0, 2), st.sampled_from(["auto", "exact"]))
def test_identical_clients_are_a_fixed_point(seed, clients, size, iterations, method):
    _, weights, reference = _clients(seed, clients, size)
    rng = np.random.default_rng(seed)
    copies = [reference[rng.permutation(size)] for _ in weights]
    result = ot_aggregate(copies, weights, reference, method=method, barycentre_iterations=iterations)
    np.testing.assert_allclose(result, reference, rtol=0, atol=1e-12)


@quick
@given(SEEDS, SIZES, SIZES, st.sampled_from(["auto", "exact", "unbalanced"]), st.data())
def test_sites_may_align_and_sum_their_own_clients(seed, clients, size, method, data):
    prototypes, weights, reference = _clients(seed, clients, size)
    masses = np.random.default_rng(seed).uniform(1, 9, (clients, size))
    sites = data.draw(st.lists(st.integers(0, 2), min_size=clients, max_size=clients))
    sums = [WeightedSum() for _ in range(3)]
    for site, rows, weight, mass in zip(sites, prototypes, weights, masses, strict=True):
        sums[site].add(ot_align(rows, reference, weights=mass, method=method), weight)
    server = WeightedSum()
    for one in sums:
        server.merge(one)
    at_once = ot_aggregate(iter(prototypes), iter(weights), reference, masses=iter(masses), method=method)
    np.testing.assert_allclose(server.mean(), at_once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "exact"])
@pytest.mark.parametrize("iterations", [0, 1, 2, 20])
def test_iterating_is_pots_free_support_barycentre(method, iterations):
    prototypes, weights, reference = _clients(1, 5, 30, 3)
    weights /= weights.sum()
    expected = ot.lp.free_support_barycenter(
        list(prototypes), [np.full(30, 1 / 30)] * 5, reference, weights=weights, numItermax=1 + iterations
    )
    result = ot_aggregate(prototypes, weights, reference, method=method, barycentre_iterations=iterations)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)


def test_iterating_with_masses_is_pots_free_support_barycentre():
    prototypes, weights, reference = _clients(2, 4, 20, 3)
    weights /= weights.sum()
    rng = np.random.default_rng(2)
    masses, reference_masses = rng.dirichlet(np.full(20, 3.0), 4), rng.dirichlet(np.full(20, 3.0))
    expected = ot.lp.free_support_barycenter(
        list(prototypes), list(masses), reference, b=reference_masses, weights=weights, numItermax=3
    )
    result = ot_aggregate(
        prototypes,
        weights,
        reference,
        masses=masses,
        reference_masses=reference_masses,
        barycentre_iterations=2,
    )
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)


def test_each_iteration_comes_closer_to_the_clients():
    prototypes, weights, reference = _clients(3, 6, 25, 3)

    def far(estimate):
        uniform = np.full(25, 1 / 25)
        costs = [ot.emd2(uniform, uniform, ot.dist(rows, estimate)) for rows in prototypes]
        return np.average(costs, weights=weights)

    distances = [
        far(ot_aggregate(prototypes, weights, reference, barycentre_iterations=n)) for n in (0, 1, 2)
    ]
    assert distances[0] > distances[1] > distances[2]


def test_iterating_ends_when_it_rests():
    prototypes, weights, reference = _clients(3, 6, 25, 3)
    rested = ot_aggregate(prototypes, weights, reference, barycentre_iterations=10**12)
    again = ot_aggregate(prototypes, weights, rested)
    np.testing.assert_allclose(again, rested, rtol=0, atol=1e-12)


def test_alignment_keeps_sharp_what_an_index_wise_mean_blurs():
    rng = np.random.default_rng(4)
    reference = rng.normal(size=(64, 32))
    clients = [(reference + 0.02 * rng.normal(size=reference.shape))[rng.permutation(64)] for _ in range(10)]
    weights = np.ones(10)
    assert np.abs(ot_aggregate(clients, weights, reference) - reference).max() < 0.05
    assert np.linalg.norm(weighted_mean(clients, weights)) < 0.5 * np.linalg.norm(reference)


def test_a_client_of_weight_zero_and_a_prototype_of_mass_zero_have_no_influence():
    prototypes, weights, reference = _clients(5, 4, 6)
    weights[2] = 0
    masses = np.ones((4, 6))
    masses[0, 3] = 0
    masses[2] = 0  # it answered for nothing: no matter, it is left out
    elsewhere = prototypes.copy()
    elsewhere[2] += 100
    elsewhere[0, 3] += 100
    first, second = (
        ot_aggregate(rows, weights, reference, masses=masses) for rows in (prototypes, elsewhere)
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


def test_bad_clients_are_named():
    prototypes, weights, reference = _clients(6, 3, 4)
    broken = prototypes.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(DataError, match="client 1: client prototypes hold NaN"):
        ot_aggregate(broken, weights, reference)
    with pytest.raises(DataError, match="client 2: weights are all zero"):
        ot_aggregate(prototypes, weights, reference, masses=[[1] * 4, [1] * 4, [0] * 4])
    with pytest.raises(DataError, match="client 0: a weight is -1"):
        ot_aggregate(prototypes, [-1, 1, 1], reference)
    with pytest.raises(DataError, match="ends after 2"):
        ot_aggregate(prototypes, weights[:2], reference)
    with pytest.raises(DataError, match="ends after 1"):
        ot_aggregate(prototypes, weights, reference, masses=np.ones((1, 4)))
    with pytest.raises(DataError, match="all weights are zero"):
        ot_aggregate(prototypes, [0, 0, 0], reference)
    with pytest.raises(SettingsError, match="barycentre_iterations is -1, it must be 0 or more"):
        ot_aggregate(prototypes, weights, reference, barycentre_iterations=-1)


# The published k-means


def test_recorded_vectors_are_at_hand():
    assert {path.stem for path in CASES} >= {
        f"case_{name}"
        for name in (
            "c3_k8_d16_drift",
            "c3_k8_d16_bigdrift",
            "c3_k8_d16_partial",
            "c3_k8_d16_identical",
            "c3_k8_d16_duprows",
            "c5_k8_d16_emptyinit",
        )
    }


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_kmeans_equals_the_published_aggregation(path: Path):
    case = np.load(path, allow_pickle=False)
    prototypes, sizes = case["client_prototypes"], case["client_sizes"]
    np.testing.assert_allclose(weighted_mean(prototypes, sizes), case["average_init"], rtol=0, atol=1e-6)
    for weights in (sizes, case["client_coef"]):
        result = kmeans(prototypes, weights)
        assert result.dtype == np.float64
        if "duprows" in path.stem:  # which of several equal centres takes a row is arbitrary: no order
            np.testing.assert_allclose(_by_rows(result), _by_rows(case["output"]), rtol=0, atol=1e-5)
        else:
            np.testing.assert_allclose(result, case["output"], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(kmeans(prototypes, weights, keep_size=True), result)


def test_kmeans_can_keep_its_size():
    prototypes = [[[0.0], [0.0], [8.0]], [[0.0], [8.0], [8.0]]]  # two distinct rows for three clusters
    np.testing.assert_array_equal(kmeans(prototypes, [1, 1]), [[0.0], [8.0]])
    np.testing.assert_array_equal(kmeans(prototypes, [1, 1], keep_size=True), [[0.0], [4.0], [8.0]])
    np.testing.assert_array_equal(kmeans(prototypes, [3, 1], keep_size=True), [[0.0], [2.0], [8.0]])


def test_kmeans_keeps_the_size_of_the_recorded_case_with_fewer_rows():
    case = np.load(next(path for path in CASES if "duprows" in path.stem), allow_pickle=False)
    kept = kmeans(case["client_prototypes"], case["client_sizes"], keep_size=True)
    assert len(case["output"]) == 5
    assert kept.shape == (8, 16)
    distances = np.linalg.norm(kept[:, None] - case["output"], axis=-1)
    assert set(distances.argmin(axis=1)) == set(range(5))  # here the starting rows repeat the five
    assert distances.min(axis=1).max() < 1e-5


def test_kmeans_weighs_the_start_only():
    # as published: from either start the two far groups are found, and their means are plain
    prototypes = np.array([[[0.0], [10.0]], [[1.0], [12.0]], [[2.0], [17.0]]])
    for weights in ([1, 1, 1], [98, 1, 1]):
        np.testing.assert_allclose(kmeans(prototypes, weights), [[1.0], [13.0]])
    # and the start decides the order
    crossed = np.array([[[0.0], [10.0]], [[10.0], [0.0]]])
    np.testing.assert_allclose(kmeans(crossed, [3, 1]), [[0.0], [10.0]])
    np.testing.assert_allclose(kmeans(crossed, [1, 3]), [[10.0], [0.0]])


def test_kmeans_repeats_itself():
    prototypes, weights, _ = _clients(7, 6, 16)
    results = [kmeans(iter(prototypes), iter(weights)) for _ in range(3)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_kmeans_names_bad_input(monkeypatch):
    prototypes, weights, _ = _clients(8, 2, 3)
    with pytest.raises(DataError, match="vector 1: a weight is -1"):
        kmeans(prototypes, [1, -1])
    with pytest.raises(DataError, match=r"each client's prototypes must be \[K, d\], they have shape \(5,\)"):
        kmeans(prototypes[:, 0], weights)
    prototypes[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="vector 0: 1 of 15 values are NaN or infinite"):
        kmeans(prototypes, weights)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn is not installed.*fedali\[server\]"):
        kmeans(prototypes, weights)
