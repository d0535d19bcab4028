"""The bounded, balanced store of observations; torn and unfinished records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.errors import CheckpointError, SettingsError
from fedali_client.observations import UNLABELLED, Observations

SHAPE = (2, 3)


def _window(number):
    return np.full(SHAPE, number, np.float32)


def _numbers(store):
    """The numbers of the windows in the store by label, in order."""
    x, y = store.labelled()
    found = {}
    for window, label in zip(x, y, strict=True):
        found.setdefault(int(label), []).append(int(window[0, 0]))
    rest = [int(window[0, 0]) for window in store.unlabelled()]
    return {**found, **({UNLABELLED: rest} if rest else {})}


def test_the_oldest_of_the_largest_class_goes(tmp_path):
    store = Observations(tmp_path / "o", SHAPE, capacity=4)
    for number, label in enumerate([0, 0, 0, 1, 1, UNLABELLED]):
        store.add(_window(number), label)
    # 5 of 4: class 0 has three, its oldest goes; then 0 and 1 have two each, 0's is older
    assert _numbers(store) == {0: [2], 1: [3, 4], UNLABELLED: [5]}
    assert store.counts() == {UNLABELLED: 1, 0: 1, 1: 2}
    assert len(store) == 4


class _Model:
    """The same rule over a plain list."""

    def __init__(self, capacity):
        self.capacity, self.rows = capacity, []

    def add(self, number, label):
        self.rows.append((number, label))
        if len(self.rows) > self.capacity:
            labels = [label for _, label in self.rows]
            most = max(labels.count(label) for label in labels)
            self.rows.remove(next(row for row in self.rows if labels.count(row[1]) == most))


@given(
    st.integers(2, 6),
    st.lists(st.one_of(st.integers(-1, 3), st.just("reopen")), max_size=40),
)
def test_it_is_the_same_store_whenever_it_is_reopened(tmp_path_factory, capacity, actions):
    path = tmp_path_factory.mktemp("store") / "o"
    store, model = Observations(path, SHAPE, capacity), _Model(capacity)
    for number, action in enumerate(actions):
        if action == "reopen":
            store.close()
            store = Observations(path, SHAPE)
        else:
            store.add(_window(number), action)
            model.add(number, action)
    expected = {}
    for number, label in model.rows:
        expected.setdefault(label, []).append(number)
    assert _numbers(store) == expected
    store.close()


def test_torn_records_are_dropped_and_their_places_used_again(tmp_path):
    path = tmp_path / "o"
    store = Observations(path, SHAPE, capacity=3)
    for number in range(3):
        store.add(_window(number), 0)
    store.close()
    data = bytearray(path.read_bytes())
    where = data.index(_window(1).tobytes())
    data[where + 5] ^= 1
    path.write_bytes(data)
    store = Observations(path, SHAPE)
    assert _numbers(store) == {0: [0, 2]}
    store.add(_window(9), 1)
    store.add(_window(10), 1)
    assert _numbers(store) == {0: [2], 1: [9, 10]}
    assert path.stat().st_size == len(data)


def test_a_new_record_and_its_victim_both_there_is_mended_at_open(tmp_path):
    """What a kill between writing the one and freeing the other leaves."""
    path = tmp_path / "o"
    store = Observations(path, SHAPE, capacity=2)
    store.add(_window(5), 0)
    store.add(_window(6), 0)
    full = path.read_bytes()
    store.add(_window(7), 1)
    store.close()
    after = bytearray(path.read_bytes())
    size = (len(full) - 4096) // 3
    for place in range(3):
        at = slice(4096 + place * size, 4096 + (place + 1) * size)
        if _window(5).tobytes() in full[at]:
            after[at] = full[at]
    path.write_bytes(after)
    assert _numbers(Observations(path, SHAPE)) == {0: [6], 1: [7]}


def test_another_capacity_or_dtype_makes_it_anew_with_what_fits(tmp_path):
    path = tmp_path / "o"
    store = Observations(path, SHAPE, capacity=6)
    for number in range(6):
        store.add(_window(number), 0 if number < 4 else 1)
    store.close()
    store = Observations(path, SHAPE, capacity=3, dtype="float16")
    assert _numbers(store) == {0: [3], 1: [4, 5]}
    assert store.labelled()[0].dtype == np.float16
    store.add(_window(6), 2)
    assert _numbers(store) == {0: [3], 1: [5], 2: [6]}
    store.close()
    store = Observations(path, SHAPE)
    assert store.capacity == 3
    assert _numbers(store) == {0: [3], 1: [5], 2: [6]}


def test_what_cannot_be_a_store_is_refused(tmp_path):
    path = tmp_path / "o"
    with pytest.raises(SettingsError, match="at least 2, not 1"):
        Observations(path, SHAPE, capacity=1)
    Observations(path, SHAPE, capacity=2).close()
    with pytest.raises(CheckpointError, match=r"shape \[2, 3\], not \[4\]"):
        Observations(path, (4,))
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="damaged"):
        Observations(path, SHAPE)
