import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.data import load_digits_dataset
from fedali.data.shift import KINDS, apply, draw
from fedali.errors import DataError, SettingsError


def rng(seed=0):
    return np.random.default_rng(seed)


@given(
    severity=st.floats(0, 1),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["float32", "float16", "uint8"]),
)
@settings(deadline=None, max_examples=40)
def test_images_stay_images(severity, seed, dtype):
    x = load_digits_dataset().x[:5]
    x = np.rint(x * 255).astype(np.uint8) if dtype == "uint8" else x.astype(dtype)
    parameters = json.loads(json.dumps(draw("images", severity, rng(seed))))
    shifted = apply(x, parameters, rng(seed))
    assert shifted.shape == x.shape
    assert shifted.dtype == x.dtype
    assert shifted.min() >= 0
    assert shifted.max() <= (255 if dtype == "uint8" else 1)
    np.testing.assert_array_equal(shifted, apply(x, parameters, rng(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_severity_zero_changes_nothing(kind):
    x = load_digits_dataset().x[:4] if kind == "images" else rng().normal(size=(4, 16, 6)).astype(np.float16)
    np.testing.assert_array_equal(apply(x, draw(kind, 0.0, rng()), rng()), x)


def test_a_quarter_turn_is_numpys():
    x = load_digits_dataset().x[:3]
    parameters = {"kind": "images", "degrees": 90.0, "gain": 1.0, "offset": 0.0}
    turned = apply(x, parameters, rng())
    assert any(np.allclose(turned, np.rot90(x, k, axes=(2, 3)), atol=1e-5) for k in (1, 3))


@given(severity=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_turning_windows_keeps_lengths_and_angles(severity, seed):
    x = rng(seed).normal(size=(3, 10, 6)).astype(np.float32)
    parameters = json.loads(json.dumps(draw("windows", severity, rng(seed))))
    turned = apply(x, {**parameters, "gain": [1.0] * 6}, rng())
    before, after = x.reshape(3, 10, 2, 3), turned.reshape(3, 10, 2, 3)
    np.testing.assert_allclose(np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), rtol=1e-4)
    # accelerometer and gyroscope sit in the same phone: the angle between them stays
    np.testing.assert_allclose(
        (after[..., 0, :] * after[..., 1, :]).sum(-1),
        (before[..., 0, :] * before[..., 1, :]).sum(-1),
        atol=1e-4,
    )
    np.testing.assert_allclose(
        apply(x, parameters, rng()), turned * np.float32(parameters["gain"]), rtol=1e-5
    )


def test_clients_differ_and_float16_stays_finite():
    assert draw("windows", 1.0, rng(0)) != draw("windows", 1.0, rng(1))
    x = np.full((1, 4, 3), 60000, np.float16)
    assert np.isfinite(apply(x, {**draw("windows", 1.0, rng(), channels=3), "gain": [1.3] * 3}, rng())).all()


def test_what_cannot_be_shifted():
    with pytest.raises(SettingsError, match="did you mean 'images'"):
        draw("image", 0.5, rng())
    with pytest.raises(SettingsError, match=r"severity .* 0\.\.1, not 1\.5"):
        draw("images", 1.5, rng())
    with pytest.raises(SettingsError, match="4 channels are no triples"):
        draw("windows", 0.5, rng(), channels=4)
    with pytest.raises(DataError, match=r"values in 0\.\.1"):
        apply(np.full((1, 1, 4, 4), 3, np.float32), draw("images", 0.5, rng()), rng())
    with pytest.raises(DataError, match=r"needs samples \[channels, height, width\]"):
        apply(np.zeros((1, 4, 6), np.float32), draw("images", 0.5, rng()), rng())
    with pytest.raises(DataError, match="6 channels needs floating-point samples"):
        apply(np.zeros((1, 4, 3), np.float32), draw("windows", 0.5, rng()), rng())
