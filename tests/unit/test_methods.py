from __future__ import annotations

import numpy as np
import pytest

from fedali.aggregation import ot_aggregate
from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods import (
    METHODS,
    PRESETS,
    Layouts,
    SharedState,
    Trained,
    Upload,
    build_method,
    describe_methods,
    personal_indices,
    shared_indices,
)

LAYOUTS = Layouts(
    Layout.of({"body.w": (3, 2), "head.0.w": (2,), "head.0.b": (1,)}),
    Layout.of({"alp.0": (5, 2), "alp.1": (3, 4)}),
)


def _shared(seed=0):
    rng = np.random.default_rng(seed)
    return SharedState(rng.standard_normal(9).astype(np.float32), rng.standard_normal(22).astype(np.float32))


def _clients(shared, count=4, drift=0.05, seed=1):
    rng = np.random.default_rng(seed)
    return [
        Trained(
            shared.theta + rng.standard_normal(9).astype(np.float32),
            shared.prototypes + drift * rng.standard_normal(22).astype(np.float32),
            int(rng.integers(5, 50)),
            rng.integers(0, 9, 8).astype(np.float64),
        )
        for _ in range(count)
    ]


def _round(method, clients, shared):
    total = Upload()
    for client in clients:
        total += method.upload(client, shared, LAYOUTS)
    return total, method.aggregate(total, shared, LAYOUTS)


def test_fedavg_averages_by_number_of_samples():
    shared, method = _shared(), build_method("fedavg")
    clients = _clients(shared)
    _, after = _round(method, clients, shared)
    expected = np.average([c.theta for c in clients], axis=0, weights=[c.samples for c in clients])
    np.testing.assert_allclose(after.theta, expected, rtol=1e-6)
    np.testing.assert_array_equal(after.prototypes, shared.prototypes)


@pytest.mark.parametrize("name", ["fedper", "fedali-head"])
def test_a_personal_head_never_leaves_the_client(name):
    shared, method = _shared(), build_method(name)
    total, after = _round(method, _clients(shared), shared)
    assert personal_indices(method, LAYOUTS.parameters).tolist() == [6, 7, 8]
    assert total.sums["theta"].total.shape == (6,)
    np.testing.assert_array_equal(after.theta[6:], shared.theta[6:])
    assert not np.allclose(after.theta[:6], shared.theta[:6])
    assert not method.has_global_model


def test_local_uploads_nothing():
    shared, method = _shared(), build_method("local")
    total, after = _round(method, _clients(shared), shared)
    assert not total.sums
    assert shared_indices(method, LAYOUTS.parameters).size == 0
    np.testing.assert_array_equal(after.theta, shared.theta)


def test_fedali_undoes_a_permutation_of_a_clients_prototypes():
    shared, method = _shared(), build_method("fedali-paper")
    clients = _clients(shared)
    _, expected = _round(method, clients, shared)
    rng = np.random.default_rng(3)
    shuffled = []
    for client in clients:
        layers = LAYOUTS.prototypes.unflatten(client.local_prototypes)
        mixed = LAYOUTS.prototypes.flatten({n: rng.permutation(v) for n, v in layers.items()})
        shuffled.append(Trained(client.theta, mixed, client.samples))
    _, found = _round(method, shuffled, shared)
    np.testing.assert_allclose(found.prototypes, expected.prototypes, rtol=1e-6)
    by_index = _round(build_method("fedali-paper", {"aggregation": "mean"}), shuffled, shared)[1]
    assert not np.allclose(by_index.prototypes, expected.prototypes, atol=1e-2)


@pytest.mark.parametrize("name", ["fedali-paper", "fedali-kmeans"])
def test_clients_that_did_not_move_are_a_fixed_point(name):
    shared = _shared()
    clients = [Trained(shared.theta, shared.prototypes, n) for n in (3, 9, 20)]
    _, after = _round(build_method(name), clients, shared)
    np.testing.assert_allclose(after.prototypes, shared.prototypes, rtol=1e-6)
    np.testing.assert_allclose(after.theta, shared.theta, rtol=1e-6)


def test_barycentre_iterations_reach_the_aggregation():
    shared = _shared()
    clients = _clients(shared, 5, drift=1.0)
    _, once = _round(build_method("fedali-paper"), clients, shared)
    _, often = _round(build_method("fedali-paper", {"barycentre_iterations": 5}), clients, shared)
    expected = ot_aggregate(
        [LAYOUTS.prototypes.unflatten(c.local_prototypes)["alp.1"] for c in clients],
        [c.samples for c in clients],
        LAYOUTS.prototypes.unflatten(shared.prototypes)["alp.1"],
        barycentre_iterations=5,
    )
    np.testing.assert_allclose(LAYOUTS.prototypes.unflatten(often.prototypes)["alp.1"], expected, rtol=1e-5)
    assert not np.allclose(once.prototypes, often.prototypes)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"barycentre_iterations": 2},
        {"aggregation": "mean"},
        {"masses": "occupancy"},
        {"solver": "entropic"},
    ],
)
def test_sites_that_sum_first_give_the_same(options):
    shared, method = _shared(), build_method("fedali-paper", options)
    clients = _clients(shared, 6)
    _, at_once = _round(method, clients, shared)
    total = Upload()
    for part in (clients[:1], clients[1:4], clients[4:]):
        site = Upload()
        for client in part:
            site += method.upload(client, shared, LAYOUTS)
        total += site
    spread_out = method.aggregate(total, shared, LAYOUTS)
    np.testing.assert_allclose(spread_out.theta, at_once.theta, rtol=1e-6)
    np.testing.assert_allclose(spread_out.prototypes, at_once.prototypes, rtol=1e-6)


def test_influence_starts_after_the_warm_up():
    assert [build_method("fedali-paper").influence(r) for r in (1, 2, 3)] == [0.0, 0.2, 0.2]
    assert build_method("fedali-paper", {"warmup": 0, "strength": 0.5}).influence(1) == 0.5
    assert build_method("l2only").influence(9) == 0.0


def test_every_name_is_described_and_built():
    assert set(describe_methods()) == {*METHODS, *PRESETS}
    for name, summary in describe_methods().items():
        assert build_method(name)
        assert summary


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedalli", {}, "unknown method 'fedalli'; did you mean 'fedali'"),
        ("fedali-paper", {"strenght": 1}, "no option 'strenght'; did you mean 'strength'"),
        ("local", {"mu": 1}, "no option 'mu'; known: answer"),
        ("fedali-paper", {"personal": "haed"}, "personal is 'haed'; did you mean 'head'"),
        ("fedali-paper", {"aggregation": 3}, "aggregation is 3; known: kmeans, mean, ot"),
        ("fedali-paper", {"strength": "high"}, "strength is 'high', it has to be a number from 0 to 1"),
        ("fedali-paper", {"strength": 1.5}, "strength is 1.5, it has to be a number from 0 to 1"),
        ("fedali-paper", {"warmup": -1}, "warmup is -1, it has to be a whole number of at least 0"),
    ],
)
def test_wrong_options_are_one_line(name, options, message):
    with pytest.raises(SettingsError, match=message):
        build_method(name, options)
