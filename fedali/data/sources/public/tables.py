"""Numbers from the text of a file, by numpy's own parser: some 70 to 140 MB a second."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
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
        text = stream.read().replace(b";", b"\n").replace(b"\r", b"").replace(b",\n", b"\n").rstrip(b",")
    lines = [line for line in text.split(b"\n") if line]
    with contextlib.suppress(ValueError):
        if not lines:
            raise DataError(f"{tree.where(place)} is empty; {tree.get}")
        return _numbers(lines, dtype, columns, ","), 0  # nothing broken, and three times as fast
    whole = re.compile(pattern)
    good = [line for line in lines if whole.fullmatch(line)]
    return parse(tree, place, iter(good), dtype, columns, ","), len(lines) - len(good)


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
    try:
        return _numbers(itertools.chain([first], lines), dtype, columns, separator, most)
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{tree.where(place)} is broken: {reason}; {tree.get}") from error


def _numbers(
    lines: Iterable[bytes],
    dtype: npt.DTypeLike,
    columns: Sequence[int] | None,
    separator: str | None,
    most: int | None = None,
) -> Array:
    table: Array = np.loadtxt(
        lines,
        dtype,
        comments=None,
        delimiter=separator,
        usecols=columns,
        encoding="latin-1",
        max_rows=most,
        ndmin=1 if np.dtype(dtype).names else 2,
    )
    return table
