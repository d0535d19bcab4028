import numpy as np
import pytest

from fedali.errors import DataError


def test_keeps_the_stored_dtype_and_makes_indices_int64(make_dataset):
    data = make_dataset(x=np.ones((12, 8, 3), np.float16), y=(np.arange(12) % 2).astype(np.int8))
    assert data.x.dtype == np.float16
    assert data.y.dtype == data.client.dtype == data.recording.dtype == data.start.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(5, int)}, r"x has 12 samples but y has shape \[5\]"),
        ({"client": np.zeros(5, int)}, r"client has shape \[5\]"),
        ({"start": np.zeros((12, 1), int)}, "start has shape"),
        ({"y": np.linspace(0, 1, 12)}, "labels must be integers; y is float64"),
        ({"y": np.where(np.arange(12) == 4, -1, 1)}, r"labels must be 0\.\.1; row 4 has -1"),
        ({"y": np.where(np.arange(12) == 7, 2, 1)}, r"labels must be 0\.\.1; row 7 has 2"),
        ({"y": np.zeros(12, int)}, "fewer than two classes"),
        ({"class_names": ("rest",), "y": np.zeros(12, int)}, "fewer than two classes"),
        ({"class_names": ("rest", "rest")}, "class name 'rest' appears twice"),
        ({"x": np.empty((0, 8, 3), np.float32)}, "no samples"),
        ({"x": np.zeros((12, 8, 3))}, "x is float64"),
        ({"x": np.zeros(12, np.float32)}, "has shape"),
        ({"client_names": ("ada", "bob", "eve")}, "client 'eve' has no samples"),
        ({"channel_names": ("a",)}, "3 channels but there are 1 channel_names"),
        ({"length": -1}, "length must be 0 or more"),
    ],
)
def test_refuses_what_is_wrong_and_says_where(make_dataset, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        make_dataset(**changes)
    assert "\n" not in str(caught.value)
    assert "'toy'" in str(caught.value)


def test_counts_values_that_are_not_finite(make_dataset):
    x = np.zeros((12, 8, 3), np.float32)
    x[5, 1, 1], x[9, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="4 values that are NaN or infinite, first in row 5"):
        make_dataset(x=x)


def test_take_forgets_clients_without_samples(make_dataset):
    data = make_dataset()
    part = data.take([7, 8, 11])
    assert part.client_names == ("bob",)
    assert part.client.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(part.x, data.x[[7, 8, 11]])
    with pytest.raises(DataError, match="no samples are left"):
        data.take([])
