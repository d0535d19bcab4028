"""What the columns of a CSV hold, before anybody says what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedali.data.labels import UNKNOWN
from fedali.data.sources.own_numbers import CODES, Numbers
from fedali.data.sources.own_time import iso_moment

_MOSTLY = 0.8  # of its cells: a column of numbers has some that are none
_FEW = 3  # examples
_DATE = re.compile(r"[0-9]+([-/:.])[0-9]+\1[0-9]+.*|[0-9]{1,4}([-/. ])[A-Za-z]{3}\2[0-9]{1,4}.*")


@dataclass(frozen=True)
class ColumnFacts:
    """What a column holds, and what it is for.

    Args:
        name: in the header.
        holds: numbers, whole numbers, dates, text or nothing.
        distinct: different cells.
        examples: some of those, the first ones.
        low: the smallest number; None without numbers, and ``high`` the largest.
        rises: whether it never falls from row to row, but for one row in a hundred.
        odd: cells among numbers that are none, and numbers like -999 that stand far from all others: missing values, it seems.
        role: what it is for: client, label, recording, time, channel, or "" where it is left out.
        certain: whether its name or a setting says so; else it is a guess.
    """

    name: str
    holds: str
    distinct: int
    examples: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    rises: bool = False
    odd: tuple[str, ...] = ()
    role: str = ""
    certain: bool = False

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.holds.endswith("numbers")


def column_facts(name: str, cells: Sequence[str], *, comma: bool = False) -> ColumnFacts:
    """The facts of a column by its cells, with a decimal ``comma`` or a point; a role it has not yet.

    >>> facts = column_facts("x", ["0.5", "NA", "1.5", "2", "2", "1"])
    >>> facts.holds, facts.low, facts.high, facts.odd
    ('numbers', 0.5, 2.0, ('NA',))
    """
    texts = [cell.strip() for cell in cells]
    distinct = dict.fromkeys(texts)
    filled = [text for text in distinct if text]
    examples = tuple(filled[:_FEW])
    if not filled:
        return ColumnFacts(name, "nothing", len(distinct), ())
    read = Numbers(comma)
    numbers = {text: read(text) for text in distinct}
    count = sum(numbers[text] is not None for text in texts if text)
    if count < _MOSTLY * sum(map(bool, texts)):
        dates = all(iso_moment(text) is not None or _DATE.fullmatch(text) for text in filled)
        return ColumnFacts(name, "dates" if dates else "text", len(distinct), examples)
    values = np.array([value for text in texts if (value := numbers[text]) is not None])
    codes = [code for code in CODES if (values == code).any() and _far(values, code)]
    kept = values[~np.isin(values, codes)]
    whole = bool((kept == np.rint(kept)).all())
    odd = [text for text in distinct if numbers[text] is None or numbers[text] in codes]
    return ColumnFacts(
        name,
        "whole numbers" if whole else "numbers",
        len(distinct),
        examples,
        low=float(kept.min()),
        high=float(kept.max()),
        rises=len(kept) > 1 and float(np.mean(np.diff(kept) >= 0)) >= 0.99 and bool(kept.max() > kept.min()),
        odd=tuple(odd),
    )


def says_none(text: str) -> bool:
    """Whether a text usually says that there is no value."""
    return not text or text.lower() in (*UNKNOWN, "none", "-", "--")


def _far(values: np.ndarray, code: float) -> bool:
    rest = values[~np.isin(values, CODES)]
    return bool(len(rest) and rest.min() > code / 2)
