"""Numbers from the text of a file, by numpy's own parser: some 70 to 140 MB a second."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.sources.public.archive import Place, Tree
from fedali.errors import DataError

Array = npt.NDArray[Any]


def read_table(
    tree: Tree, place: Place, columns: Sequence[int] | None = None, dtype: npt.DTypeLike = np.float64
) -> Array:
    """The ``columns`` [rows, columns] of a file of numbers with blanks between; ``DataError`` for one that is none, or empty."""
    with tree.open(place) as stream:
        first = stream.readline()
        return parse(tree, place, itertools.chain([first] if first else [], stream), dtype, columns)


def read_columns(tree: Tree, place: Place, names: Sequence[str]) -> Array:
    """The columns [rows, names] of a CSV with a header, by name; ``DataError`` as above."""
    with tree.open(place) as stream:
        return parse(tree, place, stream, np.float64, header(tree, place, stream.readline(), names), ",")


def read_records(
    tree: Tree, place: Place, dtype: npt.DTypeLike, pattern: bytes, columns: Sequence[int] | None = None
) -> tuple[npt.NDArray[np.void], int]:
    """The records [n] of lines that end in ``;`` and have commas between; and how many lines are left out, as they are none.

    A line is one where it matches ``pattern``; two of them in one line are two.
    """
    with tree.open(place) as stream:
        lines = stream.read().replace(b";", b"\n")
    good = re.compile(rb"^" + pattern + rb"(?=,?[ \t\r]*$)", re.MULTILINE).findall(lines)
    broken = sum(1 for line in lines.split(b"\n") if line.strip()) - len(good)
    return parse(tree, place, iter(good), dtype, columns, ","), broken


def header(tree: Tree, place: Place, line: bytes, names: Sequence[str]) -> list[int]:
    """Where the columns ``names`` are; ``DataError`` that says which are not."""
    found = [cell.strip().strip('"') for cell in line.decode("utf-8-sig", "replace").split(",")]
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{tree.where(place)} lacks the columns {', '.join(missing)}; {tree.get}")
    return [found.index(name) for name in names]


def parse(
    tree: Tree,
    place: Place,
    lines: Iterator[bytes],
    dtype: npt.DTypeLike,
    columns: Sequence[int] | None,
    separator: str | None = None,
    most: int | None = None,
) -> Array:
    """Lines as an array, of ``most`` rows; ``DataError`` for what are none, and for no line at all."""
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise DataError(f"{tree.where(place)} is empty; {tree.get}")
    fields = np.dtype(dtype).names
    try:
        table: Array = np.loadtxt(
            itertools.chain([first], lines),
            dtype,
            comments=None,
            delimiter=separator,
            usecols=columns,
            encoding="latin-1",
            max_rows=most,
            ndmin=1 if fields else 2,
        )
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{tree.where(place)} is broken: {reason}; {tree.get}") from error
    return table
