from __future__ import annotations

import numpy as np
import pytest

from fedali.data.normalisation import Normalisation
from fedali_client.compute.batches import Batches, OwnOrder, RoundOrder, fingerprint


def _epochs(batches, steps, begin=0):
    found = []
    for step in range(begin, steps):
        count = batches.fill(OwnOrder(3, 1), step)
        found.append((batches.x.copy(), batches.y.copy(), batches.weights.copy(), count))
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
def test_every_epoch_has_every_sample_once_and_the_rest_weighs_nothing(dtype):
    x = np.arange(20, dtype=dtype).reshape(10, 2)
    scale = Normalisation(np.float32([1.0, 2.0]), np.float32([2.0, 0.5]))
    batches = Batches(4, x, np.arange(10), scale)
    assert batches.per_epoch == 3
    orders = []
    for epoch in range(2):
        rows = _epochs(batches, 3 * epoch + 3, 3 * epoch)
        assert [row[3] for row in rows] == [4, 4, 2]
        for values, labels, weights, count in rows:
            assert (values == scale(x[labels])).all()
            assert weights.tolist() == [1.0] * count + [0.0] * (4 - count)
        orders.append(np.concatenate([labels[:count] for _, labels, _, count in rows]).tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]


def test_a_fit_that_goes_on_anywhere_sees_the_same_batches():
    x, y = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32), np.arange(11)
    whole = _epochs(Batches(4, x, y, None), 9)
    for begin in range(9):
        for one, other in zip(whole[begin:], _epochs(Batches(4, x, y, None), 9, begin), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_places_in_memory_stay_and_fewer_samples_than_a_batch_will_do():
    batches = Batches(8, np.ones((3, 2), np.float32), np.array([0, 1, 2]), None)
    where = batches.x.ctypes.data
    assert batches.fill(OwnOrder(0, 1), 0) == 3
    assert batches.fill(OwnOrder(0, 1), 1) == 3
    assert batches.x.ctypes.data == where
    assert batches.weights.sum() == 3


def test_fingerprints_tell_values_shapes_dtypes_and_numbers_apart(tmp_path):
    x = np.arange(600_000, dtype=np.float32).reshape(-1, 2)
    np.save(tmp_path / "x.npy", x)
    seen = [
        fingerprint(x, 1),
        fingerprint(x, 2),
        fingerprint(x.reshape(-1, 4), 1),
        fingerprint(x.astype(np.float64), 1),
        fingerprint(x[::-1], 1),
        fingerprint(x, "1"),
        fingerprint(x, np.float32(1.0) * np.ones(())),
    ]
    assert len(set(seen)) == len(seen)
    assert fingerprint(np.load(tmp_path / "x.npy", mmap_mode="r"), 1) == seen[0]


def test_the_order_of_a_round_is_one_stream_with_a_permutation_for_each_epoch():
    entropy = (3, 0, 7, 2**63 + 5)
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    stream = [rng.permutation(11) for _ in range(4)]
    for epoch in (2, 0, 3, 1):  # asked for in any order
        assert (RoundOrder(entropy).permutation(epoch, 11) == stream[epoch]).all()
    x, y = np.zeros((11, 1), np.float32), np.arange(11)
    batches = Batches(4, x, y, None)
    seen = []
    for step in range(6):
        count = batches.fill(RoundOrder(entropy), step)
        seen += batches.y[:count].tolist()
    assert seen == np.concatenate(stream[:2]).tolist()
