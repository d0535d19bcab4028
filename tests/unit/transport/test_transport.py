"""Alignment by optimal transport: against POT's own solvers, brute force, and what a server relies on."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.errors import DataError, MissingExtraError, SettingsError
from fedali.transport import plans as transport
from fedali.transport.plans import barycentric_projection, ot_align, separation, transport_plan

SEEDS = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=30)


def _sets(seed: int, clients: int, references: int, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Generic positions: normal deviates, so that no two plans cost the same."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(clients, dim)), rng.normal(size=(references, dim))


def _drifted(seed: int, size: int = 40, dim: int = 16, drift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A reference, and a client's copy of it that moved row by row."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(size, dim))
    return reference + drift * rng.normal(size=reference.shape), reference


@quick
@given(SEEDS, st.integers(1, 12), st.sampled_from(["sqeuclidean", "cosine"]))
def test_the_fast_path_is_exact_transport(seed, size, cost):
    client, reference = _sets(seed, size, size)
    plan = transport_plan(client, reference, cost=cost)
    costs = ot.dist(client, reference, metric=cost)
    uniform = np.full(size, 1 / size)
    expected = ot.emd(uniform, uniform, costs)
    assert (plan * costs).sum() == pytest.approx((expected * costs).sum(), rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(plan, expected, atol=1e-12)
    np.testing.assert_allclose(
        transport_plan(client, reference, cost=cost, method="exact"), plan, rtol=0, atol=1e-12
    )


def test_the_assignment_is_the_cheapest_of_all_permutations():
    client, reference = _sets(3, 6, 6)
    orders = [list(order) for order in itertools.permutations(range(6))]
    cheapest = min(orders, key=lambda order: np.square(client[order] - reference).sum())
    np.testing.assert_array_equal(ot_align(client, reference), client[cheapest])


def test_auto_takes_the_exact_solver_when_masses_or_sizes_differ():
    client, reference = _sets(4, 5, 5)
    weights = [1, 2, 3, 4, 5]
    by_hand = ot.emd(np.array(weights) / 15, np.full(5, 0.2), ot.dist(client, reference))
    np.testing.assert_allclose(transport_plan(client, reference, weights=weights), by_hand, atol=1e-12)
    np.testing.assert_allclose(transport_plan(client[:3], reference).sum(axis=1), 1 / 3)
    # equal masses, however they are scaled, are still an assignment
    np.testing.assert_array_equal(
        transport_plan(client, reference, weights=[7] * 5), transport_plan(client, reference)
    )


@quick
@given(
    SEEDS, st.integers(1, 9), st.integers(1, 9), st.sampled_from(["auto", "exact", "entropic"]), st.booleans()
)
def test_balanced_plans_keep_both_marginals(seed, clients, references, method, empty):
    client, reference = _sets(seed, clients, references)
    rng = np.random.default_rng(seed)
    weights, reference_weights = rng.uniform(0.1, 9, clients), rng.uniform(0.1, 9, references)
    if empty and clients > 1:
        weights[0] = 0
    plan = transport_plan(
        client,
        reference,
        weights=weights,
        reference_weights=reference_weights,
        method=method,
        regularisation=0.1,
    )
    assert plan.shape == (clients, references)
    assert plan.dtype == np.float64
    assert (plan >= 0).all()
    np.testing.assert_allclose(plan.sum(axis=1), weights / weights.sum(), atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=0), reference_weights / reference_weights.sum(), atol=1e-12)


@pytest.mark.parametrize("regularisation", [0.2, 0.05])
def test_entropic_is_pots_sinkhorn(regularisation):
    client, reference = _sets(5, 12, 9)
    costs = ot.dist(client, reference)
    expected = ot.sinkhorn(
        np.full(12, 1 / 12), np.full(9, 1 / 9), costs, regularisation * np.median(costs), stopThr=1e-12
    )
    plan = transport_plan(client, reference, method="entropic", regularisation=regularisation)
    np.testing.assert_allclose(plan, expected, atol=1e-6)


def test_entropic_tends_to_exact():
    client, reference = _drifted(6)
    exact = transport_plan(client, reference)
    gaps = [
        np.abs(transport_plan(client, reference, method="entropic", regularisation=r) - exact).sum()
        for r in (0.3, 0.1, 0.03, 0.003)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert gaps[-1] < 1e-6


def test_entropic_survives_where_the_plain_kernel_underflows():
    # 0.4 of the mass must cross a distance whose kernel is exp(-1000)
    plan = transport_plan(
        [[0.0], [1.0]], [[0.0], [1.0]], weights=[0.9, 0.1], method="entropic", regularisation=0.002
    )
    np.testing.assert_allclose(plan, [[0.5, 0.4], [0.0, 0.1]], atol=1e-6)


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")  # POT's other solver, not ours
def test_unbalanced_minimises_its_objective():
    client, reference = _sets(8, 7, 5)
    a, b, costs = np.full(7, 1 / 7), np.full(5, 1 / 5), ot.dist(client, reference)
    penalty = 0.3 * np.median(costs)
    expected = ot.unbalanced.lbfgsb_unbalanced(a, b, costs, 0, penalty, reg_div="kl", regm_div="kl")
    plan = transport_plan(client, reference, method="unbalanced")

    def objective(plan):
        missed = zip((plan.sum(axis=1), plan.sum(axis=0)), (a, b), strict=True)
        return (plan * costs).sum() + penalty * sum(
            (m * np.log(m / wanted) - m + wanted).sum() for m, wanted in missed
        )

    assert objective(plan) == pytest.approx(objective(expected), rel=1e-4)
    assert plan.sum() < 0.9  # or it would not be unbalanced


def test_unbalanced_leaves_what_a_client_lacks_and_follows_the_rest():
    client, reference = _drifted(9)
    aligned = ot_align(client[4:], reference, method="unbalanced")
    np.testing.assert_array_equal(aligned[:4], reference[:4])
    # each other row follows its own partner; a balanced plan must send strangers to the first four
    assert (
        np.linalg.norm(aligned[4:] - client[4:], axis=1).max()
        < 0.1 * np.linalg.norm(client[4:], axis=1).min()
    )
    balanced = ot_align(client[4:], reference)
    assert np.linalg.norm(balanced[:4] - reference[:4], axis=1).min() > 1


def test_unbalanced_ignores_an_outlier():
    client, reference = _drifted(10)
    outlier = client.copy()
    outlier[7] = 50.0
    plan = transport_plan(outlier, reference, method="unbalanced")
    assert plan[7].sum() < 1e-6 * plan.sum()
    aligned = ot_align(outlier, reference, method="unbalanced")
    np.testing.assert_array_equal(aligned[7], reference[7])
    others = np.delete(np.arange(40), 7)
    np.testing.assert_allclose(
        aligned[others], ot_align(client, reference, method="unbalanced")[others], atol=0.05
    )
    assert ot_align(outlier, reference).max() == 50.0  # balanced: it must go somewhere


@pytest.mark.parametrize("method", ["auto", "entropic", "unbalanced"])
def test_a_prototype_without_mass_has_no_influence(method):
    client, reference = _drifted(11, size=12)
    weights = np.ones(12)
    weights[[2, 5]] = 0
    elsewhere = client.copy()
    elsewhere[[2, 5]] = 1e3
    plan = transport_plan(client, reference, weights=weights, method=method)
    assert not plan[[2, 5]].any()
    first, second = (
        ot_align(rows, reference, weights=weights, method=method) for rows in (client, elsewhere)
    )
    np.testing.assert_array_equal(first, second)
    # and a reference row without mass keeps its place
    third = ot_align(client, reference, reference_weights=weights, method=method)
    np.testing.assert_array_equal(third[[2, 5]], reference[[2, 5]])


@quick
@given(SEEDS, st.integers(1, 10), st.sampled_from(["auto", "exact"]))
def test_alignment_undoes_a_permutation(seed, size, method):
    client, reference = _sets(seed, size, size)
    order = np.random.default_rng(seed).permutation(size)
    np.testing.assert_allclose(ot_align(reference[order], reference, method=method), reference, atol=1e-12)
    np.testing.assert_allclose(
        ot_align(client[order], reference, method=method),
        ot_align(client, reference, method=method),
        atol=1e-12,
    )


def test_an_assignment_changes_no_number_and_copies():
    client, reference = _drifted(12, drift=0.01)
    client = client.astype(np.float32)
    aligned = ot_align(client, reference)
    assert aligned.dtype == np.float64
    np.testing.assert_array_equal(aligned, client)
    aligned[:] = 0
    assert client.any()


@quick
@given(SEEDS, st.integers(1, 30), st.floats(0.0, 2.0))
def test_knowing_the_separation_changes_no_result(seed, size, drift):
    client, reference = _drifted(seed, size, 8, drift)
    found = ot_align(client, reference, apart=separation(reference))
    np.testing.assert_array_equal(found, ot_align(client, reference))


def test_small_drift_is_recognised_without_costs(monkeypatch):
    client, reference = _drifted(0, drift=0.01)
    apart = separation(reference)
    nearest = np.sort(ot.dist(reference, reference, metric="euclidean"), axis=1)[:, 1]
    np.testing.assert_allclose(apart, nearest, rtol=1e-3)
    assert (apart <= nearest).all()
    monkeypatch.setattr(transport, "_costs", None)
    found = ot_align(client, reference, apart=apart)
    np.testing.assert_array_equal(found, client)
    assert not np.shares_memory(found, client)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_separation_is_never_overstated(scale):
    reference = np.random.default_rng(2).normal(size=(50, 7)) * scale
    reference[1] = reference[0]  # the same twice, and almost the same
    reference[3] = reference[2] * (1 + 1e-7)
    nearest = np.sort(ot.dist(reference, reference, metric="euclidean"), axis=1)[:, 1]
    apart = separation(reference)
    assert (apart <= nearest + 1e-12 * scale).all()
    np.testing.assert_allclose(apart[4:], nearest[4:], rtol=1e-3)


def test_rows_that_changed_places_are_put_back_though_the_rest_stayed():
    client, reference = _drifted(1, drift=0.01)
    swapped = client.copy()
    swapped[[0, 1]] = client[[1, 0]]
    np.testing.assert_array_equal(ot_align(swapped, reference, apart=separation(reference)), client)


def test_a_common_offset_does_not_blur_the_costs():
    client, reference = _drifted(13, drift=0.01)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(ot_align(client[order] + 1e8, reference + 1e8), client + 1e8)


def test_scale_does_not_matter():
    client, reference = _sets(14, 9, 7)
    for method in ("exact", "entropic", "unbalanced"):
        plain = transport_plan(client, reference, method=method)
        for scale in (1e-9, 1e9):
            scaled = transport_plan(scale * client, scale * reference, method=method)
            np.testing.assert_allclose(scaled, plain, atol=1e-9)


@pytest.mark.parametrize("method", ["auto", "exact", "entropic", "unbalanced"])
@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
def test_degenerate_sets_stay_finite(method, cost):
    collapsed = np.zeros((5, 3))
    np.testing.assert_array_equal(ot_align(collapsed, collapsed, method=method, cost=cost), collapsed)
    one = np.ones((1, 3))
    np.testing.assert_allclose(ot_align(one, one, method=method, cost=cost), one)


def test_projection_is_the_mean_of_what_arrives():
    plan = np.array([[0.3, 0.0, 0.1], [0.1, 0.0, 0.1], [0.0, 0.0, 0.4]])
    rows = np.array([[1.0, 0.0], [5.0, 4.0], [0.0, 6.0]])
    projected = barycentric_projection(plan, rows, fallback=np.full((3, 2), 9.0))
    np.testing.assert_allclose(projected, [[2.0, 1.0], [9.0, 9.0], [1.0, 14 / 3]])
    kept = barycentric_projection(plan, rows, np.full((3, 2), 9.0), minimum_mass=[0.5, 0.5, 0.5])
    np.testing.assert_allclose(kept, [[9.0, 9.0], [9.0, 9.0], [1.0, 14 / 3]])


GOOD = np.arange(6.0).reshape(3, 2)
BAD = [
    ({"client": [1.0, 2.0]}, DataError, r"client prototypes have shape \(2,\)"),
    ({"client": np.empty((0, 2))}, DataError, r"client prototypes have shape \(0, 2\)"),
    ({"client": [[np.nan, 1.0]]}, DataError, "client prototypes hold NaN"),
    ({"reference": [[np.inf, 1.0]]}, DataError, "reference prototypes hold NaN, infinite"),
    ({"reference": [[1e200, 1.0]]}, DataError, "reference prototypes hold NaN, infinite or huge"),
    ({"reference": np.ones((3, 4))}, DataError, "client prototypes have 2 dimensions, the reference has 4"),
    ({"weights": [1, 2]}, DataError, r"weights have shape \(2,\), 3 prototypes need \(3,\)"),
    ({"weights": [1, 2, -3]}, DataError, r"weights must be finite and >= 0, they go from -3.0 to 2.0"),
    ({"weights": [1, 2, np.nan]}, DataError, "weights must be finite"),
    ({"reference_weights": [1, np.inf, 2]}, DataError, "reference_weights must be finite"),
    ({"reference_weights": [0, 0, 0]}, DataError, "reference_weights are all zero"),
    ({"method": "asignment"}, SettingsError, "unknown method 'asignment'; did you mean 'assignment'"),
    ({"cost": "cosin"}, SettingsError, "unknown cost 'cosin'; did you mean 'cosine'"),
    ({"method": "assignment", "weights": [1, 1, 2]}, SettingsError, "3 to 3 prototypes of these masses"),
    ({"method": "assignment", "client": GOOD[:2]}, SettingsError, "2 to 3 prototypes of these masses"),
    ({"method": "entropic", "regularisation": 0}, SettingsError, "regularisation 0.* must be positive"),
    ({"method": "unbalanced", "marginal_penalty": np.nan}, SettingsError, "marginal_penalty nan: must be"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD)
@pytest.mark.parametrize("function", [transport_plan, ot_align])
def test_bad_input_is_one_clear_line(function, wrong, error, message):
    arguments = {"client": GOOD, "reference": GOOD, **wrong}
    with pytest.raises(error, match=message) as caught:
        function(arguments.pop("client"), arguments.pop("reference"), **arguments)
    assert "\n" not in str(caught.value)


def test_bad_projections_are_named():
    with pytest.raises(DataError, match=r"the plan has shape \(2, 2\), 3 prototypes need \(3, K'\)"):
        barycentric_projection(np.ones((2, 2)), GOOD)
    with pytest.raises(DataError, match="1 columns of the plan have no mass"):
        barycentric_projection([[1.0, 0.0]], [[1.0]])
    with pytest.raises(DataError, match=r"fallback has shape \(3, 1\), the projection has \(2, 1\)"):
        barycentric_projection([[1.0, 0.0]], [[1.0]], [[1.0], [2.0], [3.0]])


def test_solvers_that_do_not_converge_say_so(monkeypatch):
    client, reference = _sets(15, 64, 64)
    with pytest.raises(
        SettingsError, match=r"entropic .* regularisation 1e-05 leaves .*% of the mass astray"
    ):
        transport_plan(client, reference, method="entropic", regularisation=1e-5)
    # steps of the unbalanced solver shrink with 1 / penalty: small steps are no proof
    with pytest.raises(SettingsError, match=r"unbalanced .* marginal_penalty \(10000.0\) below 1"):
        transport_plan(client, reference, method="unbalanced", marginal_penalty=1e4)
    monkeypatch.setattr(transport, "_PIVOTS", 10)
    with pytest.raises(SettingsError, match=r"exact transport of \(64, 64\) prototypes failed"):
        transport_plan(client, reference, method="exact")


@pytest.mark.parametrize(
    ("method", "module", "name"), [("auto", "scipy.optimize", "scipy"), ("exact", "ot", "POT")]
)
def test_missing_extras_are_named(monkeypatch, method, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed.*fedali\[server\]"):
        transport_plan(GOOD, GOOD, method=method)


def test_importing_needs_numpy_alone():
    code = "import sys, fedali.aggregation; print({'ot', 'scipy', 'sklearn', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
