import itertools

import numpy as np
import pytest

from fedali.data import Partition, build_federation, dirichlet, load_digits_dataset, load_motionsense, natural
from fedali.data.normalisation import add_up, channel_statistics, channel_sums
from fedali.errors import DataError, SettingsError


def digits_federation(seed=0, **options):
    data = load_digits_dataset()
    partition = dirichlet(data.y, 8, 0.5, np.random.default_rng(5), minimum=40)
    return build_federation(data, partition=partition, **{"order": "random", "seed": seed, **options})


def arrays_of(federation):
    for c in federation.clients:
        yield from (c.x_train, c.y_train, c.x_validation, c.y_validation, c.x_test, c.y_test)
    for n in federation.normalisation:
        yield from (n.mean, n.std)


def test_same_seed_same_bits():
    options = {"shift": ("images", 0.5)}
    one, same, other = (digits_federation(seed, **options) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(arrays_of(one), arrays_of(same), strict=True))
    assert one.shifts == same.shifts != other.shifts
    assert not np.array_equal(one.clients[0].x_train, other.clients[0].x_train)
    assert len({str(shift) for shift in one.shifts}) == 8


def test_every_sample_is_somewhere():
    federation = digits_federation()
    data = load_digits_dataset()
    assert federation.counts().sum(axis=0).tolist() == np.bincount(data.y).tolist()
    everything = np.concatenate(
        [x for c in federation.clients for x in (c.x_train, c.x_validation, c.x_test)]
    )
    np.testing.assert_array_equal(
        np.sort(everything.reshape(len(everything), -1), axis=0),
        np.sort(data.x.reshape(len(data.x), -1), axis=0),
    )


@pytest.mark.parametrize("normalise", ["global", "client"])
def test_normalised_training_data_have_mean_0_and_std_1(normalise):
    federation = digits_federation(normalise=normalise)
    normal = [n(c.x_train) for n, c in zip(federation.normalisation, federation.clients, strict=True)]
    groups = [np.concatenate(normal)] if normalise == "global" else normal
    for group in groups:
        assert group.dtype == np.float32
        np.testing.assert_allclose(group.mean(axis=(0, 2, 3), dtype=float), 0, atol=1e-5)
        np.testing.assert_allclose(group.std(axis=(0, 2, 3), dtype=float), 1, atol=1e-5)
    assert federation.normalisation[0].mean.shape == (1, 1, 1)


def test_statistics_do_not_see_validation_and_test(make_dataset):
    """Values that only the last windows have must not move the mean."""
    x = np.zeros((20, 8, 3), np.float32)
    x[:12, :, 1] = np.arange(12)[:, None]
    x[12:] = 1000
    data = make_dataset(
        x=x, y=np.arange(20) // 2 % 2, client=np.zeros(20, int), client_names=("ada",),
        recording=np.zeros(20, int), start=np.arange(20),
    )  # fmt: skip
    federation = build_federation(data, partition=natural(data), seed=0)
    statistics = federation.normalisation[0]
    assert statistics.mean.shape == statistics.std.shape == (3,)
    np.testing.assert_allclose(statistics.mean, [0, 5.5, 0])
    np.testing.assert_allclose(statistics.std, [1, np.arange(12).std(), 1], rtol=1e-6)
    assert federation.notes[-1] == "constant in the training samples and not scaled: a, c"
    assert (federation.clients[0].x_test == 1000).all()


def test_a_channel_that_is_constant_in_training_may_move_a_little_later(make_dataset):
    x = np.random.default_rng(0).normal(size=(12, 8, 3)).astype(np.float32)
    x[..., 1] = 0.1
    x[6:, :, 2] = 9.81  # of one client alone
    x[..., 0] *= 1e-7  # small, and no constant
    data = make_dataset(x=x)
    together = build_federation(data, partition=natural(data), seed=0)
    assert together.constant == ("constant in the training samples and not scaled: b",)
    moved = together.normalisation[0](x + np.float32(0.001))
    np.testing.assert_allclose(moved[..., 1], 0.001, atol=1e-6)
    assert together.normalisation[0].std[0] == np.float32(1e-6)
    own = build_federation(data, partition=natural(data), normalise="client", seed=0)
    assert own.constant == ("constant in the training samples of 2 clients and not scaled: b, c",)
    assert own.normalisation[1].std[1:].tolist() == [1, 1]
    none = build_federation(data, partition=natural(data), normalise="none", seed=0)
    assert not none.constant
    for shared in (together.normalisation[0], channel_statistics([x])):
        sums = add_up([channel_sums(client.x_train) for client in together.clients])
        np.testing.assert_array_equal(sums.normalisation((8, 3)).std == 1, shared.std == 1)
        assert sums.constant() == [1]


def test_none_leaves_values_and_features_have_a_statistic_each(make_dataset):
    plain = digits_federation(normalise="none")
    client = plain.clients[0]
    np.testing.assert_array_equal(plain.normalisation[0](client.x_test), client.x_test)
    data = make_dataset(x=np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16))
    federation = build_federation(data, partition=natural(data), seed=0)
    pooled = np.concatenate([c.x_train for c in federation.clients]).astype(float)
    np.testing.assert_allclose(federation.normalisation[1].mean, pooled.mean(axis=0), rtol=1e-5)
    assert federation.clients[0].x_train.dtype == np.float16


def test_motionsense_per_person_without_leaks(shared_data):
    data = load_motionsense(shared_data, subjects=range(1, 7))
    federation = build_federation(data, partition=natural(data), seed=0)
    assert [c.name for c in federation.clients] == [f"subject-{k}" for k in range(1, 7)]
    lost = data.counts().sum() - federation.counts().sum()
    assert 0 < lost <= 6 * 6 * 2
    assert any(note.startswith(f"dropped {lost} of {len(data.y)} windows") for note in federation.notes)
    for c in federation.clients:  # every stretch of 64 raw samples is in one part alone
        halves = [
            {half.tobytes() for window in x for half in (window[:64], window[64:])}
            for x in (c.x_train, c.x_validation, c.x_test)
        ]
        for one, other in itertools.combinations(halves, 2):
            assert not one & other
        assert set(c.y_train) == set(c.y_validation) == set(c.y_test) == set(range(6))
    text = federation.describe()
    assert text.startswith("motionsense: 6 clients, 6 classes, samples [128, 6]")
    assert "licence: MIT" in text


@pytest.mark.parametrize("options", [{"order": "random"}, {"order": "time", "shift": ("images", 0.5)}])
def test_measured_on_validation_no_test_sample_is_anywhere(options):
    fractions = (0.5, 0.2, 0.3)
    usual = digits_federation(fractions=fractions, **options)
    chosen = digits_federation(fractions=fractions, measured_on="validation", **options)
    for one, other in zip(usual.clients, chosen.clients, strict=True):
        np.testing.assert_array_equal(other.x_test, one.x_validation)
        np.testing.assert_array_equal(other.y_test, one.y_validation)
        inner = np.concatenate([other.x_train, other.x_validation])
        assert sorted(x.tobytes() for x in inner) == sorted(x.tobytes() for x in one.x_train)
        assert len(other.x_validation) == pytest.approx(len(one.x_train) * 2 / 7, abs=6)
    seen = np.concatenate([c.x_train for c in chosen.clients])
    np.testing.assert_allclose(
        chosen.normalisation[0].mean, seen.mean(axis=(0, 2, 3), keepdims=True)[0], rtol=1e-4
    )
    assert "measured on validation samples; no test sample is read" in chosen.notes


def test_measured_on_validation_nothing_is_shared_across_the_cut(make_dataset):
    """Windows of 4 every 2: those of training and of its own validation share no row."""
    n = 40
    data = make_dataset(
        x=np.random.default_rng(0).normal(size=(n, 4, 3)).astype(np.float32),
        y=np.arange(n) // 10 % 2,
        client=np.arange(n) // 20,
        recording=np.arange(n) // 10,
        start=np.arange(n) % 10 * 2,
        length=4,
    )
    usual, chosen = (
        build_federation(data, partition=natural(data), seed=0, measured_on=on)
        for on in ("test", "validation")
    )
    place = {x.tobytes(): i for i, x in enumerate(data.x)}
    for one, other in zip(usual.clients, chosen.clients, strict=True):
        train, validation = (
            {place[x.tobytes()] for x in part} for part in (other.x_train, other.x_validation)
        )
        assert train | validation < {place[x.tobytes()] for x in one.x_train}
        assert validation
        assert min(abs(i - j) for i in train for j in validation) >= 2


def test_spreading_overlapping_windows_over_clients_is_told(shared_data):
    data = load_motionsense(shared_data, subjects=[1])
    partition = dirichlet(data.y, 4, 1.0, np.random.default_rng(0))
    federation = build_federation(data, partition=partition, seed=0)
    assert any("clients share raw samples" in note for note in federation.notes)
    assert set(partition.notes) <= set(federation.notes)


def test_windows_are_shifted_per_client(shared_data):
    data = load_motionsense(shared_data, subjects=[1, 2])
    plain, shifted = (
        build_federation(data, partition=natural(data), seed=0, shift=s) for s in (None, ("windows", 1.0))
    )
    for before, after in zip(plain.clients, shifted.clients, strict=True):
        assert after.x_train.dtype == np.float16
        assert before.x_train.shape == after.x_train.shape
        assert not np.array_equal(before.x_train, after.x_train)
    assert shifted.shifts[0]["axis"] != shifted.shifts[1]["axis"]


def test_clients_that_are_too_small(make_dataset):
    data = make_dataset()
    rows = np.arange(12)
    with pytest.raises(DataError, match="client 'client-2' has no test samples; give it"):
        build_federation(data, partition=Partition((rows[:11], rows[11:])), seed=0)
    with pytest.raises(DataError, match="client 'client-2' has 0 training samples, fewer than 1"):
        build_federation(data, partition=Partition((rows, rows[:0])), seed=0)
    with pytest.raises(DataError, match="client 'ada' has 2 training samples, fewer than 5"):
        build_federation(data, partition=natural(data), seed=0, minimum_train=5)


def test_settings_that_make_no_sense(make_dataset):
    data = make_dataset()
    whole = natural(data)
    for options, message in [
        ({"normalise": "gobal"}, "did you mean 'global'"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"partition": Partition((np.arange(3),))}, "does not give each of the 12 samples"),
        ({"partition": Partition((np.arange(12), np.arange(2)))}, "exactly one client"),
        ({"partition": Partition(())}, "no clients"),
        ({"shift": ("sounds", 0.5)}, "unknown kind of domain shift"),
        ({"measured_on": "tests"}, "cannot measure on 'tests'; did you mean 'test'"),
        ({"measured_on": "validation", "fractions": (0.5, 0, 0.5)}, "set split.validation above 0"),
        ({"order": "tim"}, "did you mean 'time'"),
    ]:
        with pytest.raises(SettingsError, match=message):
            build_federation(data, **{"partition": whole, "seed": 0, **options})
