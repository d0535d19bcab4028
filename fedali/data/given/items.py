"""Data sets that are asked for one sample after another, as torch's and torchvision's are; torch is not needed to ask them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedali.data.given.samples import Given, given
from fedali.errors import DataError


def is_items(data: Any) -> bool:
    """Whether ``data`` is such a data set."""
    return (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, str | bytes | list | tuple | dict)
        and not hasattr(data, "__array__")
    )


def from_items(data: Any, where: str, *, part: int | None = None) -> Given:
    """Samples and labels of a data set whose items are pairs of both.

    Transforms of the data set are done once, here: what is drawn at random in them is drawn once.

    Raises ``DataError`` for an item that is no pair, and samples of different shapes.
    """
    tensors = getattr(data, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) == 2:  # a TensorDataset has both at once
        return given(tensors[0], tensors[1], where, part=part)
    count = len(data)
    if not count:
        raise DataError(f"{where} is empty")
    x: list[Any] = []
    y: list[Any] = []
    pictures = False
    for place in range(count):
        item = data[place]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"{where}: item {place} is {type(item).__name__}, no pair (sample, label); give a data set of pairs"
            )
        pictures = pictures or hasattr(item[0], "getbands")  # Pillow's
        sample = np.asarray(item[0])
        if x and sample.shape != x[0].shape:
            raise DataError(
                f"{where}: sample {place} has shape {list(sample.shape)} and sample 0 {list(x[0].shape)}; make them the same, as "
                "by a transform that resizes"
            )
        x.append(sample)
        y.append(item[1].item() if hasattr(item[1], "item") else item[1])
    found = given(np.stack(x), y, where, part=part)
    names = getattr(data, "classes", None)
    known = isinstance(names, list | tuple) and found.y.dtype.kind in "iu"
    return Given(
        found.x,
        found.y,
        where,
        part=found.part,
        class_names=tuple(map(str, names)) if known and names else None,
        pictures=pictures,
    )
