"""Samples that come as lines of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fedali.data.samples import check_samples
from fedali.errors import DataError

Array = npt.NDArray[Any]


def read_line(line: str, shape: Sequence[int], number: int) -> Array:
    """The samples [n, *shape] in a line of JSON: an array, or an object that has it as ``x``."""
    where = f"line {number}"
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    if isinstance(value, dict):
        if "x" not in value:
            raise DataError(f'{where} has no "x"; it has {", ".join(value) or "nothing"}')
        value = value["x"]
    return check_samples(value, shape, where)
