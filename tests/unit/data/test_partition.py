import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.data import Partition, dirichlet, load_digits_dataset, natural, shards
from fedali.errors import SettingsError


def assert_covers(partition, n):
    rows = np.concatenate(partition.assignments)
    assert np.array_equal(np.sort(rows), np.arange(n))
    for part in partition.assignments:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    clients=st.integers(1, 12),
    alpha=st.sampled_from([1e-300, 1e-3, 0.1, 1.0, 1e6]),
    minimum=st.integers(0, 10),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_dirichlet_always_ends_covers_and_keeps_the_minimum(labels, clients, alpha, minimum, seed):
    if clients > len(labels) or clients * minimum > len(labels):
        with pytest.raises(SettingsError, match="samples"):
            dirichlet(labels, clients, alpha, np.random.default_rng(seed), minimum=minimum)
        return
    first, again = (
        dirichlet(labels, clients, alpha, np.random.default_rng(seed), minimum=minimum) for _ in range(2)
    )
    assert_covers(first, len(labels))
    assert len(first.assignments) == clients
    assert min(map(len, first.assignments)) >= minimum
    assert first.notes == again.notes
    assert all(np.array_equal(a, b) for a, b in zip(first.assignments, again.assignments, strict=True))


def test_small_alpha_skews_more():
    y = load_digits_dataset().y

    def classes_to_hold_most(alpha):  # mean share of a client's commonest class
        partition = dirichlet(y, 20, alpha, np.random.default_rng(0), minimum=5)
        return np.mean([np.bincount(y[rows]).max() / len(rows) for rows in partition.assignments])

    shares = [classes_to_hold_most(alpha) for alpha in (0.05, 0.5, 1000.0)]
    assert shares[0] > shares[1] + 0.1 > shares[2] + 0.2
    assert shares[2] < 0.16  # ten even classes


def test_moves_are_reported():
    y = np.repeat([0, 1], 500)
    partition = dirichlet(y, 20, 0.01, np.random.default_rng(0), minimum=20)
    assert any("moved" in note and "clients below 20" in note for note in partition.notes)
    assert not any("moved" in note for note in dirichlet(y, 2, 1e6, np.random.default_rng(0)).notes)


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=100),
    clients=st.integers(1, 10),
    each=st.integers(1, 4),
)
@settings(deadline=None)
def test_shards_deal_out_everything(labels, clients, each):
    if clients * each > len(labels):
        with pytest.raises(SettingsError, match="samples"):
            shards(labels, clients, each, np.random.default_rng(0))
        return
    partition = shards(labels, clients, each, np.random.default_rng(0))
    assert_covers(partition, len(labels))
    sizes = [len(rows) for rows in partition.assignments]
    assert max(sizes) - min(sizes) <= each


def test_two_shards_hold_at_most_two_classes_of_equal_size():
    y = np.random.default_rng(1).permutation(
        np.repeat(np.arange(10), 60)
    )  # 20 shards of 30: no shard crosses classes
    partition = shards(y, 10, 2, np.random.default_rng(0))
    assert all(len(np.unique(y[rows])) <= 2 for rows in partition.assignments)


def test_natural_keeps_owners_and_names(make_dataset):
    data = make_dataset()
    partition = natural(data)
    assert partition.names == ("ada", "bob")
    assert [rows.tolist() for rows in partition.assignments] == [list(range(6)), list(range(6, 12))]


@pytest.mark.parametrize("clients", [0, -1, 4])
def test_impossible_numbers_of_clients(clients):
    for spread in (lambda: dirichlet([0, 1, 1], clients, 1.0, np.random.default_rng(0), minimum=0),
                   lambda: shards([0, 1, 1], clients, 1, np.random.default_rng(0))):  # fmt: skip
        with pytest.raises(SettingsError, match=r"1\.\.3 clients"):
            spread()


def test_other_nonsense():
    rng = np.random.default_rng(0)
    for alpha in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(SettingsError, match="alpha must be a positive number"):
            dirichlet([0, 1], 1, alpha, rng, minimum=0)
    with pytest.raises(SettingsError, match="shards"):
        shards([0, 1], 1, 0, rng)
    with pytest.raises(SettingsError, match="labels must be integers"):
        dirichlet([0.5, 1.0], 1, 1.0, rng, minimum=0)
    with pytest.raises(SettingsError, match="2 names"):
        Partition((np.arange(3),), names=("a", "b"))
