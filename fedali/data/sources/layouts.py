"""Axes of samples in .npz files: other orders than those in which FedAli stores samples, by a setting or where that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.sources.reading import LAYOUTS
from fedali.errors import DataError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_COLOURS = (1, 3, 4)  # channels of pictures as cameras and files have them
_SMALL = 4  # as many channels as pictures have; fewer pixels than they have
_PICTURE = 8  # pixels of a side that a picture has at least
_MANY = 16  # channels, of which more are said

_WORDS = {
    "hwc": "[height, width, channels]",
    "chw": "[channels, height, width]",
    "hw": "[height, width], grey",
    "tc": "[time, channels]",
    "ct": "[channels, time]",
}
_AXES = {"hwc": 3, "chw": 3, "hw": 2, "tc": 2, "ct": 2}


def stored(x: Array, layout: str) -> Array:
    """Samples [n, ...] of a layout as FedAli stores them: [n, channels, height, width] or [n, time, channels].

    >>> stored(np.zeros((5, 16, 20, 3)), "hwc").shape, stored(np.zeros((5, 16, 16)), "hw").shape
    ((5, 3, 16, 20), (5, 1, 16, 16))
    >>> stored(np.zeros((5, 6, 128)), "ct").shape
    (5, 128, 6)
    """
    if layout == "hwc":
        return np.ascontiguousarray(np.moveaxis(x, 3, 1))
    if layout == "hw":
        return x[:, None]
    return np.ascontiguousarray(np.moveaxis(x, 2, 1)) if layout == "ct" else x


def arranged(
    x: Array, where: str, layout: str | None, names: Sequence[str] | None = None, wanted: Shape | None = None
) -> tuple[Array, list[str]]:
    """Samples ``x`` [n, ...] as FedAli stores them, and notes on what was assumed of their axes.

    Args:
        x: as they are in a file.
        where: the file.
        layout: one of ``LAYOUTS``; None to see for oneself.
        names: of the channels, where there are any.
        wanted: the shape of a sample that a model takes, where there is one: what fits it alone is certain.

    Raises ``DataError`` for a layout that ``x`` has not, and for axes that are not certain, with the setting that says which they are.
    """
    odd = layout is not None and _AXES[layout] != x.ndim - 1
    if wanted is not None:
        return _fitting(x, None if odd else layout, wanted)
    if odd:
        raise DataError(
            f"{where}: x has shape {list(x.shape)}, and data.layout is {layout!r}, {_WORDS[str(layout)]} of each sample; {_known(x.ndim - 1)}"
        )
    if layout is not None:
        return stored(x, layout), []
    if x.ndim not in (3, 4):
        return x, []
    found, note = (_image if x.ndim == 4 else _window)(x, names)
    if len(found) > 1:
        said = " or ".join(f'"{one}" for {_WORDS[one]}' for one in found)
        raise DataError(
            f"{where}: x has shape {list(x.shape)}, samples that may be {note}; say which: data.layout = {said}"
        )
    return stored(x, found[0]), [note] if note else []


def _shape_of(shape: Shape, layout: str) -> Shape:
    """Of a sample of ``shape`` as FedAli stores it."""
    if layout == "hwc":
        return (shape[2], *shape[:2])
    if layout == "hw":
        return (1, *shape)
    return shape[::-1] if layout == "ct" else shape


def _known(axes: int) -> str:
    some = [f'"{name}" for {_WORDS[name]}' for name in LAYOUTS if _AXES[name] == axes]
    return "say which: data.layout = " + ", ".join(some) if some else "leave data.layout away"


def _fitting(x: Array, layout: str | None, wanted: Shape) -> tuple[Array, list[str]]:
    """By what a model takes: by the layout where that fits, else as it is where that fits, else by the one layout that does."""
    if layout is not None and _shape_of(x.shape[1:], layout) == wanted:
        return stored(x, layout), []
    if x.shape[1:] == wanted:
        return x, []
    fits = [name for name in LAYOUTS if _AXES[name] == x.ndim - 1 and _shape_of(x.shape[1:], name) == wanted]
    if len(fits) != 1:
        return x, []  # which is refused for its shape
    return stored(x, fits[0]), [_taken(x, fits[0])]


def _image(x: Array, names: Sequence[str] | None) -> tuple[list[str], str]:
    """Layouts that [n, a, b, c] may have, and what to say of it: of one that is certain what was assumed, of several what they are."""
    a, b, c = x.shape[1:]
    if names is not None and (a == len(names)) != (c == len(names)):
        return (["chw"], "") if a == len(names) else (["hwc"], _taken(x, "hwc"))
    if a <= _SMALL < c:
        return ["chw"], ""
    large = min(a, b) >= _PICTURE and (a == b or x.dtype == np.uint8 or min(a, b) >= _MANY)
    if c in _COLOURS and large:
        return ["hwc"], _taken(x, "hwc")
    if a > c or (a == b != c and c > _SMALL):
        return ["hwc", "chw"], f"{_kind((c, a, b))}, or {_kind((a, b, c))}"
    return ["chw"], _taken(x, "chw")


def _window(x: Array, names: Sequence[str] | None) -> tuple[list[str], str]:
    """As ``_image``, of [n, a, b]."""
    a, b = x.shape[1:]
    if names is not None and len(names) in (a, b):
        if a == b:
            return ["tc"], _taken(x, "tc")
        return (["tc"], "") if b == len(names) else (["ct"], _taken(x, "ct"))
    if names is not None and len(names) == 1:
        return ["hw"], _taken(x, "hw")
    if a == 1 < b:
        return ["ct"], _taken(x, "ct")
    picture = min(a, b) >= _PICTURE and (a == b or x.dtype == np.uint8)
    if picture and x.dtype == np.uint8 and a == b:
        return ["hw"], _taken(x, "hw")
    if picture or a < b:
        maybe = ["tc"] if a > b else ["tc", "ct"]
        kinds = [_kind((a, b)), _kind((b, a))][: 1 if a == b else len(maybe)]
        return [*maybe, *["hw"] * picture], ", or ".join(kinds + [_kind((1, a, b))] * picture)
    return ["tc"], _taken(x, "tc") if b > _MANY or a == b else ""


def _taken(x: Array, layout: str) -> str:
    kind = _kind(_shape_of(x.shape[1:], layout))
    return f"samples {list(x.shape[1:])} are taken as {kind}: {_WORDS[layout]} (data.layout)"


def _kind(shape: Shape) -> str:
    """Samples of a shape as they are stored, for people."""
    kind = f"images of {shape[1]} x {shape[2]}" if len(shape) == 3 else f"windows of {shape[0]}"
    channels = shape[0] if len(shape) == 3 else shape[1]
    return f"{kind} with {channels} channel{'' if channels == 1 else 's'}"
