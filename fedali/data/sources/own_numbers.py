"""Numbers as loggers and spreadsheets write them: with a decimal comma, and with something for what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedali.data.labels import UNKNOWN
from fedali.data.sources.reading import Reading
from fedali.errors import DataError

_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]*([eE][+-]?[0-9]+)?|[+-]?,[0-9]+")
_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]*([eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_NONE = (*UNKNOWN, "", "inf", "-inf")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}([.,' \u2009\u00a0\u202f][0-9]{3})+([.,][0-9]*)?")
CODES = (-999.0, -9999.0, -99999.0)  # what loggers write for a missing value


@dataclass(frozen=True)
class Numbers:
    """How cells are numbers: with which decimal sign, and which of them are missing values."""

    comma: bool = False
    missing: frozenset[str] = frozenset()
    values: frozenset[float] = field(default_factory=frozenset)

    def __call__(self, cell: str) -> float | None:
        """The number in a cell; NaN for a missing value, None for what is neither.

        >>> read = Numbers(comma=True, missing=frozenset({"na"}), values=frozenset({-999.0}))
        >>> read(" 0,5"), read("-999,0"), read("NA"), read("1_0"), read("0.5")
        (0.5, nan, nan, None, None)
        """
        text = cell
        if self.comma:
            text = "x" if "." in cell else cell.replace(",", ".")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if value in self.values:
            return math.nan
        if math.isfinite(value) and "_" not in cell:
            return value
        return math.nan if cell.strip().lower() in self.missing else None

    def row(self, cells: Sequence[str]) -> list[float] | None:
        """Those of a row at once; None where one of them needs a closer look. Missing values among them stay as they are."""
        whole = "".join(cells)
        if "_" in whole or (self.comma and "." in whole):
            return None
        try:
            found = [*map(float, [cell.replace(",", ".") for cell in cells] if self.comma else cells)]
        except ValueError:
            return None
        return found if math.isfinite(sum(found)) else None

    def of(self, where: str, column: str, cell: str) -> float:
        """As a call; raises ``DataError`` for what is neither."""
        value = self(cell)
        if value is None:
            text = cell.strip()
            hint = ""
            if text.lower() in _NONE:
                hint = f', or say that it stands for a missing value: data.missing = ["{text}"]'
            elif is_comma(text) and not self.comma:
                hint = ', or say that its comma is a decimal sign: data.decimal = ","'
            elif grouped(text):
                hint = "; write numbers without a sign between thousands"
            raise DataError(
                f"{where}: column {column!r} is {repr(text) if text else 'empty'}, not a finite number; "
                f"repair or remove the line{hint}"
            )
        return value


def numbers_of(path: Path, reading: Reading, cells: Iterable[str]) -> Numbers:
    """How the numbers in a file are written, of some of its ``cells``. Raises ``DataError`` where that is not certain."""
    missing, values = stand_ins(reading.missing or ())
    if reading.decimal is not None:
        return Numbers(reading.decimal == ",", missing, values)
    known = [text for cell in cells if (text := cell.strip()).lower() not in missing]
    commas = [text for text in known if _COMMA.fullmatch(text)]
    if commas:
        point = next((text for text in known if _POINT.fullmatch(text)), None)
        if point is not None or all(_THOUSANDS.fullmatch(text) for text in commas):
            other = (
                f"and there is {point!r}" if point is not None else "which may be a decimal sign or thousands"
            )
            raise DataError(
                f"{path}: numbers have a comma ({commas[0]!r}), {other}; say which sign is before decimals: "
                'data.decimal = "," or "." (and write no thousands)'
            )
    return Numbers(bool(commas), missing, values)


def is_comma(text: str) -> bool:
    """Whether a text may be a number with a decimal comma."""
    return _COMMA.fullmatch(text) is not None


def grouped(text: str) -> bool:
    """Whether a text, that is no number otherwise, may be one with thousands.

    >>> grouped("10.009,20"), grouped("1 234"), grouped("9.81")
    (True, True, False)
    """
    return _GROUPED.fullmatch(text) is not None


def stand_ins(missing: Iterable[str]) -> tuple[frozenset[str], frozenset[float]]:
    """What stands for a missing value, as words in lower case and as numbers.

    >>> stand_ins(["NA", "-999"])
    (frozenset({'na'}), frozenset({-999.0}))
    """
    words, values = set(), set()
    for text in missing:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            values.add(number)
        else:
            words.add(text.strip().lower())
    return frozenset(words), frozenset(values)


def check_codes(where: str, names: Iterable[str], values: npt.NDArray[np.floating]) -> None:
    """Raise ``DataError`` for a channel of ``values`` [n, c] in which -999 or its like is far from all else, and so no measurement."""
    for k, name in enumerate(names):
        column = values[:, k]
        for code in CODES:
            with np.errstate(over="ignore"):
                is_code = (column == code) & np.isfinite(column)  # of half precision
            if (
                is_code.any()
                and (rest := column[~is_code & ~np.isnan(column)]).size
                and rest.min() > code / 2
            ):
                raise DataError(
                    f"{where}: column {name!r} holds {code:g} {int(is_code.sum())} times, far from all else; if it stands for a "
                    f'missing value say data.missing = ["{code:g}"], if it was measured say data.missing = []'
                )
