import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.data import load_motionsense
from fedali.data.split import split
from fedali.errors import DataError, SettingsError

FRACTIONS = st.sampled_from([(0.6, 0.2, 0.2), (0.7, 0.0, 0.3), (0.5, 0.25, 0.25), (0.8, 0.1, 0.1)])


@st.composite
def windowed(draw, *, mixed):
    """Windows of several recordings; each of one class, or, ``mixed``, with classes changing inside."""
    length = draw(st.sampled_from([2, 5, 8]))
    labels, recordings, starts = [], [], []
    for recording in range(draw(st.integers(1, 5))):
        label = draw(st.integers(0, 2))
        at = draw(st.integers(0, 20))
        for _ in range(draw(st.integers(1, 25))):
            labels.append(draw(st.integers(0, 2)) if mixed else label)
            recordings.append(recording * 17)
            starts.append(at)
            at += draw(st.integers(0, 2)) if draw(st.booleans()) else draw(st.integers(1, length + 2))
    order = draw(st.permutations(range(len(labels))))
    y, recording, start = (np.array(v)[list(order)] for v in (labels, recordings, starts))
    return y, recording, start, length


def parts_of(result):
    return [result.train, result.validation, result.test]


def samples(rows, recording, start, length):
    return {(int(recording[i]), int(start[i]) + k) for i in rows for k in range(length)}


def assert_sound(result, y, recording, start, length):
    rows = np.concatenate(parts_of(result))
    assert len(np.unique(rows)) == len(rows) == len(y) - result.dropped
    raw = [samples(part, recording, start, length) for part in parts_of(result)]
    for one, other in itertools.combinations(raw, 2):
        assert not one & other


def most_apart(recording, start, length):
    """How many windows of one class do not overlap, at most: the greedy choice is the largest."""
    count, last = 0, None
    for r, s in sorted(zip(recording.tolist(), start.tolist(), strict=True)):
        if last is None or r != last[0] or s >= last[1] + length:
            count, last = count + 1, (r, s)
    return count


@given(data=windowed(mixed=True), fractions=FRACTIONS)
@settings(deadline=None, max_examples=150)
def test_no_raw_sample_is_in_two_parts(data, fractions):
    y, recording, start, length = data
    result = split(y, recording, start, length, fractions=fractions)
    assert_sound(result, y, recording, start, length)
    again = split(y, recording, start, length, fractions=fractions)
    assert all(np.array_equal(a, b) for a, b in zip(parts_of(result), parts_of(again), strict=True))


@given(data=windowed(mixed=False), fractions=FRACTIONS)
@settings(deadline=None, max_examples=150)
def test_each_class_is_stratified_in_time_order(data, fractions):
    y, recording, start, length = data
    result = split(y, recording, start, length, fractions=fractions)
    assert_sound(result, y, recording, start, length)
    for label in np.unique(y):
        mine = [part[y[part] == label] for part in parts_of(result)]
        sizes = np.array([len(part) for part in mine])
        moments = [sorted(zip(recording[part], start[part], strict=True)) for part in mine if len(part)]
        assert all(one[-1] < other[0] for one, other in itertools.pairwise(moments))
        apart = most_apart(recording[y == label], start[y == label], length)
        needed = np.array(fractions) > 0
        if apart >= needed.sum():
            assert (sizes > 0).tolist() == needed.tolist()
            away = np.abs(sizes - np.array(fractions) * sizes.sum())
            one_each = np.abs(
                needed - np.array(fractions) * needed.sum()
            ).max()  # when no more than that is possible
            assert away.max() <= max(1.0, one_each) + 1e-6
        elif apart == 2:
            assert sizes[0] > 0
            assert sizes[2] > 0
        else:
            assert sizes[0] > 0


@given(n=st.integers(1, 300), per_length=st.sampled_from([1, 2, 4]), fractions=FRACTIONS)
@settings(deadline=None, max_examples=60)
def test_regular_windows_lose_no_more_than_two_gaps(n, per_length, fractions):
    """Windows of ``per_length`` strides: a gap has ``per_length - 1`` windows, and three parts have two gaps."""
    stride, length = 64, 64 * per_length
    recording, start = np.zeros(n, int), np.arange(n) * stride
    result = split(np.zeros(n, int), recording, start, length, fractions=fractions)
    gaps = 2 if fractions[1] else 1
    assert result.dropped <= gaps * (per_length - 1)
    assert_sound(result, np.zeros(n, int), recording // stride, start // stride, per_length)
    if n >= 10 + 2 * per_length:
        sizes = np.array([len(part) for part in parts_of(result)])
        assert np.abs(sizes - np.array(fractions) * sizes.sum()).max() <= 1 + 1e-6


def test_a_cut_between_recordings_costs_nothing():
    recording = np.repeat([1, 2, 3], [6, 2, 2])
    start = np.concatenate([np.arange(6), np.arange(2), np.arange(2)]) * 64
    result = split(np.zeros(10, int), recording, start, 128)
    assert result.dropped == 0
    assert [part.tolist() for part in parts_of(result)] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]


def test_overlap_between_classes_is_dropped_too():
    """One recording, 0 then 1, as sliding windows: the seam lies between class 0's test and class 1's training."""
    y = np.repeat([0, 1], 10)
    recording, start = np.zeros(20, int), np.arange(20) * 64
    result = split(y, recording, start, 128)
    assert_sound(result, y, recording, start, 128)
    assert result.dropped == 5


def test_random_order_is_seeded_and_stratified():
    y = np.repeat(np.arange(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    one, same, other = (split(y, order="random", rng=np.random.default_rng(s)) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(parts_of(one), parts_of(same), strict=True))
    assert not np.array_equal(one.train, other.train)
    assert one.dropped == 0
    for part, fraction in zip(parts_of(one), (0.6, 0.2, 0.2), strict=True):
        assert np.abs(np.bincount(y[part]) - fraction * np.bincount(y)).max() <= 1


def test_three_samples_of_a_class_reach_all_parts():
    for order in ("time", "random"):
        result = split(
            [0, 1, 0, 1, 0, 1], order=order, rng=np.random.default_rng(0), fractions=(0.9, 0.05, 0.05)
        )
        assert [len(part) for part in parts_of(result)] == [2, 2, 2]


def test_motionsense_loses_about_two_windows_a_class_and_person(shared_data):
    data = load_motionsense(shared_data)
    dropped = 0
    for k in range(24):
        rows = data.client == k
        y, recording, start = data.y[rows], data.recording[rows], data.start[rows]
        result = split(y, recording, start, data.length)
        assert_sound(result, y, recording, start // 64, 2)
        dropped += result.dropped
        for part in parts_of(result):
            assert len(np.unique(y[part])) == 6
    assert dropped <= 24 * 6 * 2


@pytest.mark.parametrize(
    "fractions",
    [
        (0.6, 0.4),
        (0.6, 0.2, 0.1),
        (1.2, -0.4, 0.2),
        (0.0, 0.5, 0.5),
        (0.5, 0.5, 0.0),
        (float("nan"), 0.5, 0.5),
    ],
)
def test_bad_fractions(fractions):
    with pytest.raises(SettingsError, match="fractions"):
        split([0, 1], fractions=fractions)


def test_bad_orders():
    with pytest.raises(SettingsError, match="did you mean 'random'"):
        split([0, 1], order="randm")
    with pytest.raises(SettingsError, match="needs a random generator"):
        split([0, 1], order="random")
    with pytest.raises(SettingsError, match="would leak"):
        split([0, 1], [0, 0], [0, 64], 128, order="random", rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="2 labels need 2 recordings"):
        split([0, 1], [0], [0, 64], 128)


def test_recording_order_takes_the_beginning_of_each_recording():
    y, recording = [0] * 20 + [1] * 10, [0] * 10 + [1] * 10 + [2] * 10
    start = [64 * i for i in range(10)] * 3
    parts = split(y, recording, start, 64, fractions=(0.5, 0.2, 0.3), order="recording")
    for number in range(3):
        rows = 10 * number + np.arange(10)
        assert np.intersect1d(parts.train, rows).tolist() == rows[:5].tolist()
        assert np.intersect1d(parts.test, rows).tolist() == rows[7:].tolist()
    by_time = split(y, recording, start, 64, fractions=(0.5, 0.2, 0.3), order="time")
    assert np.intersect1d(by_time.test, np.arange(10)).size == 0
