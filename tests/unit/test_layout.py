from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedali.errors import SettingsError
from fedali.layout import Layout

shapes = st.dictionaries(
    st.text("abc.xyz", min_size=1, max_size=6), st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=6
)


@given(shapes)
def test_flatten_and_unflatten_are_inverse(found):
    layout = Layout.of(found)
    arrays = {name: np.random.default_rng(0).standard_normal(shape) for name, shape in found.items()}
    flat = layout.flatten(arrays, np.float64)
    assert flat.shape == (layout.size,)
    for name, value in layout.unflatten(flat).items():
        np.testing.assert_array_equal(value, arrays[name])
    assert Layout.from_json(layout.to_json()) == layout


def test_unflatten_keeps_leading_axes_and_takes_tensors():
    layout = Layout.of({"a": (2, 2), "b": (3,)})
    cohort = torch.arange(14.0).reshape(2, 7)
    assert layout.unflatten(cohort)["b"].tolist() == [[4, 5, 6], [11, 12, 13]]
    assert layout.unflatten(cohort.numpy())["a"].shape == (2, 2, 2)


def test_select_by_glob():
    layout = Layout.of({"body.w": (2,), "head.w": (3,), "head.b": (1,)})
    assert layout.select(["head.*"]).tolist() == [2, 3, 4, 5]
    assert layout.select(["*.b", "body.*"]).tolist() == [0, 1, 5]
    with pytest.raises(SettingsError, match=r"no parameter matches 'haed\.\*'"):
        layout.select(["haed.*"])


@pytest.mark.parametrize(
    "text", ["", "3", '[["a", 3]]', '[["a", [-1]]]', '[["a", [1]], ["a", [1]]]', '{"a": [1]}']
)
def test_broken_json_is_refused(text):
    with pytest.raises(SettingsError, match="not a layout"):
        Layout.from_json(text)


def test_arrays_that_do_not_fit_are_named():
    layout = Layout.of({"a": (2,), "b": (1,)})
    with pytest.raises(SettingsError, match="missing or unknown: b, c"):
        layout.flatten({"a": np.zeros(2), "c": np.zeros(1)})
    with pytest.raises(SettingsError, match=r"a has shape \(3,\), the layout says \(2,\)"):
        layout.flatten({"a": np.zeros(3), "b": np.zeros(1)})
