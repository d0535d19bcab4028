"""Domain shift: each client sees the world through its own camera, or wears its sensor its own way.

Strength grows with ``severity`` from 0 (nothing changes) to 1. At 1, images are turned by up to 45 degrees, their
contrast changes by up to a half and their brightness by up to 0.3, and they are blurred (up to one pixel) or noisy (up
to 0.2); windows are turned in space by up to 90 degrees and each channel's gain changes by up to 0.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedali.data.sources.extras import require
from fedali.errors import DataError, SettingsError, did_you_mean

KINDS = ("images", "windows")

_DEGREES_IMAGE, _GAIN_IMAGE, _OFFSET, _BLUR, _NOISE = 45.0, 0.5, 0.3, 1.0, 0.2
_DEGREES_SPACE, _GAIN_CHANNEL = 90.0, 0.3


class DomainShift(NamedTuple):
    """What kind of data is shifted (``images`` or ``windows``), and how severely (0..1)."""

    kind: str
    severity: float


def draw(kind: str, severity: float, rng: np.random.Generator, *, channels: int = 6) -> dict[str, Any]:
    """One client's shift as a dictionary that JSON can hold; ``channels`` matters for windows only.

    Raises ``SettingsError`` for an unknown kind, a severity outside 0..1, or channels that are not x, y, z triples.

    >>> draw("images", 0.0, np.random.default_rng(0))["degrees"]
    0.0
    """
    if kind not in KINDS:
        raise SettingsError(f"unknown kind of domain shift {kind!r}; {did_you_mean(kind, KINDS)}")
    if not 0 <= severity <= 1:
        raise SettingsError(f"the severity of a domain shift must be in 0..1, not {severity}")

    def around_zero(most: float) -> float:
        return float(rng.uniform(-1, 1) * most * severity) + 0.0  # no minus zero

    if kind == "images":
        parameters: dict[str, Any] = {
            "kind": kind,
            "degrees": around_zero(_DEGREES_IMAGE),
            "gain": 1.0 + around_zero(_GAIN_IMAGE),
            "offset": around_zero(_OFFSET),
        }
        worse = "blur" if rng.random() < 0.5 else "noise"
        parameters[worse] = float(rng.random() * severity * (_BLUR if worse == "blur" else _NOISE))
        return parameters
    if channels < 3 or channels % 3:
        raise SettingsError(
            f"windows are turned by x, y, z triples of channels; {channels} channels are no triples"
        )
    axis = rng.normal(size=3)
    return {
        "kind": kind,
        "axis": (axis / np.linalg.norm(axis)).tolist(),
        "degrees": float(rng.random() * severity * _DEGREES_SPACE),
        "gain": [1.0 + around_zero(_GAIN_CHANNEL) for _ in range(channels)],
    }


def apply(x: npt.NDArray[Any], parameters: Mapping[str, Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """``x`` shifted, same shape and dtype: images [n, c, h, w] in 0..1 (or uint8), or windows [n, t, c].

    ``rng`` is used for noise alone. Raises ``DataError`` when ``x`` is of another shape or range, ``MissingExtraError``
    when images need scipy and it is not installed.
    """
    if parameters["kind"] == "images":
        return _apply_to_images(x, parameters, rng)
    return _apply_to_windows(x, parameters)


def _apply_to_images(
    x: npt.NDArray[Any], parameters: Mapping[str, Any], rng: np.random.Generator
) -> npt.NDArray[Any]:
    if x.ndim != 4:
        raise DataError(
            f"a domain shift of images needs samples [channels, height, width], not {list(x.shape[1:])}"
        )
    whole = x.dtype == np.uint8
    images = x.astype(np.float32) / np.float32(255 if whole else 1)
    if images.size and (images.min() < 0 or images.max() > 1):
        raise DataError(
            f"a domain shift of images needs values in 0..1, not {images.min():g}..{images.max():g}"
        )
    if parameters["degrees"]:
        rotate = require("scipy.ndimage").rotate
        images = rotate(images, parameters["degrees"], axes=(3, 2), reshape=False, order=1, mode="nearest")
    images = images * np.float32(parameters["gain"]) + np.float32(parameters["offset"])
    if parameters.get("blur"):
        spread = parameters["blur"]
        images = require("scipy.ndimage").gaussian_filter(images, (0, 0, spread, spread), mode="nearest")
    if parameters.get("noise"):
        images = images + rng.normal(0, parameters["noise"], images.shape)
    images = np.clip(images, 0, 1)
    return np.rint(images * 255).astype(np.uint8) if whole else images.astype(x.dtype)


def _apply_to_windows(x: npt.NDArray[Any], parameters: Mapping[str, Any]) -> npt.NDArray[Any]:
    gain = np.asarray(parameters["gain"], np.float32)
    if x.ndim != 3 or x.shape[2] != len(gain) or x.dtype.kind != "f":
        raise DataError(
            f"a domain shift of windows with {len(gain)} channels needs floating-point samples [time, {len(gain)}], "
            f"not {x.dtype} {list(x.shape[1:])}"
        )
    turn = rotation_matrix(parameters["axis"], parameters["degrees"]).astype(np.float32)
    triples = x.astype(np.float32).reshape(*x.shape[:2], -1, 3)
    turned: npt.NDArray[Any] = (triples @ turn.T).reshape(x.shape) * gain
    most = float(np.finfo(x.dtype).max)
    np.clip(turned, -most, most, out=turned)
    return turned.astype(x.dtype)


def rotation_matrix(axis: npt.ArrayLike, degrees: float) -> npt.NDArray[np.float64]:
    """The matrix [3, 3] that turns about the unit vector ``axis`` [3] by the right-hand rule (Rodrigues' formula).

    >>> rotation_matrix([0, 0, 1], 90).round(6) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    """
    x, y, z = np.asarray(axis, np.float64)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross))
