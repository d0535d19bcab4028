"""Guesses at what the columns of a CSV are for, by their names and by what they hold; each is called a guess wherever it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fedali.data.labels import UNKNOWN, label_of
from fedali.data.look.columns import ColumnFacts, says_none
from fedali.data.sources.own_columns import names_time
from fedali.data.sources.own_time import iso_moment
from fedali.data.sources.reading import ROLES, Reading

_WORDS = {  # of the names of columns, the surest first
    "client": "client user userid username uid subject subjectid subj participant participantid participants person personid people "
    "patient patientid pid volunteer wearer rider driver proband owner who sub device deviceid hospital site ward",
    "label": "label labels activity activityid class classlabel target category gt groundtruth truth annotation behaviour behavior task "
    "posture gesture exercise movement action event state status condition diagnosis stage",
    "recording": "recording recordingid session sessionid trial trialid experiment experimentid exp run runid take segment sequence "
    "file filename visit episode bout",
}
_UNITS = {"t", "ts", "s", "sec", "ms", "msec", "us", "ns"}
_LARGEST = 1000  # clients, classes or recordings that a guess takes a column for
_DAYS = [
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%d-%b-%Y",
    "%d-%b-%y",
]
_HOURS = ["%H:%M:%S.%f", "%H:%M:%S", "%H:%M", "%I:%M:%S.%f %p", "%I:%M:%S %p", "%I:%M %p", "%H:%M:%S:%f"]
_FORMATS = (*(f"{day} {hour}" for hour in _HOURS for day in _DAYS), *_HOURS)


def guess_roles(columns: Sequence[ColumnFacts], reading: Reading, *, client: bool) -> list[ColumnFacts]:
    """The columns with their roles; what names or ``reading`` say is certain. Without ``client`` none is looked for.

    Each that is left and holds numbers is taken for a channel, for now.
    """
    roles = [role for role in ROLES if client or role != "client"]
    found: dict[int, tuple[str, bool]] = {}
    for role in roles:
        told = getattr(reading.columns, role)
        places = [i for i, c in enumerate(columns) if (c.name == told if told else c.name.lower() == role)]
        if len(places) == 1:
            found[places[0]] = role, True
    for likely in (_by_name, _by_cells):
        lacking = [role for role in roles if role not in {known for known, _ in found.values()}]
        if likely is _by_cells and {"client", "label"} <= set(lacking):  # words may be either
            lacking = ["time"] if "time" in lacking else []
        for role in lacking:
            places = likely(role, columns, [i for i in range(len(columns)) if i not in found])
            if places:
                found[places[0]] = role, False
    channels = reading.columns.channels
    for i, column in enumerate(columns):
        if i not in found and (_measured(column) if channels is None else column.name in channels):
            found[i] = "channel", channels is not None
    return [
        replace(column, role=found[i][0], certain=found[i][1]) if i in found else column
        for i, column in enumerate(columns)
    ]


def _measured(column: ColumnFacts) -> bool:
    """Whether a column holds numbers, and none of a person or a trial by its name."""
    return column.numeric and not (
        _names(column) and any(_rank(role, column.name) is not None for role in _WORDS)
    )


def names_clock(name: str) -> bool:
    """Whether the name of a column that only rises may be one of times, since it has a unit or is short for it.

    >>> names_clock("t [ms]"), names_clock("Zeit (s)"), names_clock("steps")
    (True, True, False)
    """
    return names_time(name) or bool(_UNITS & set(_parts(name)))


def _parts(name: str) -> list[str]:
    """The words in a name, in lower case."""
    return re.split(r"[\W_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def _by_name(role: str, columns: Sequence[ColumnFacts], free: Sequence[int]) -> list[int]:
    """Those of the ``free`` columns whose names are of a role, the surest first."""
    if role == "time":
        return [i for i in free if columns[i].rises and names_time(columns[i].name)]
    ranks = {i: _rank(role, columns[i].name) for i in free if _names(columns[i])}
    return [i for _, i in sorted((rank, i) for i, rank in ranks.items() if rank is not None)]


def _by_cells(role: str, columns: Sequence[ColumnFacts], free: Sequence[int]) -> list[int]:
    """Those of the ``free`` columns that have a role by what they hold: dates, or the only words that are left."""
    if role == "time":
        return [i for i in free if columns[i].holds == "dates"]
    words = [i for i in free if columns[i].holds == "text" and _names(columns[i]) and columns[i].distinct > 1]
    return words if role != "recording" and len(words) == 1 else []


def _rank(role: str, name: str) -> int | None:
    """The place of a name among the words for a role; None where it is none of them."""
    known = _WORDS[role].split()
    parts = _parts(name)
    ranks = [known.index(part) for part in ["".join(parts), *parts] if part in known]
    return min(ranks) if ranks else None


def _names(column: ColumnFacts) -> bool:
    """Whether its cells may be names: words or whole numbers, and not too many of them."""
    return column.holds in ("text", "whole numbers") and column.distinct <= _LARGEST


def guess_values(
    columns: Sequence[ColumnFacts], cells: Sequence[Sequence[str]], reading: Reading
) -> dict[str, Any]:
    """Guesses at ``data.missing``, ``data.unlabelled`` and ``data.time_format``, of columns with roles and their ``cells``."""
    guess: dict[str, Any] = {}
    odd = dict.fromkeys(text for column in columns if column.role == "channel" for text in column.odd)
    if (
        reading.missing is None
        and odd
        and all(says_none(text) or isinstance(label_of(text), int) for text in odd)
    ):
        guess["missing"] = [_plain(text) for text in odd]
    for column, texts in zip(columns, cells, strict=True):
        distinct = dict.fromkeys(text.strip() for text in texts)
        if column.role == "label" and reading.unlabelled is None and (none := _none(distinct)):
            guess["unlabelled"] = [_plain(text) for text in none]
        other = column.role == "time" and any(
            iso_moment(text) is None for text in distinct if column.holds == "dates"
        )
        if other and reading.time_format is None and (form := _format(list(distinct))):
            guess["time_format"] = form
    return guess


def _none(labels: Iterable[str]) -> list[str]:
    """Of the labels those that seem to say that there is none."""
    return [
        text
        for text in labels
        if not text or text.lower() in UNKNOWN or (isinstance(number := label_of(text), int) and number < 0)
    ]


def _plain(text: str) -> int | str:
    """As it is best written in a scenario."""
    number = label_of(text)
    return number if isinstance(number, int) else text


def _format(texts: Sequence[str]) -> str | None:
    """The first format that all of some texts have; days before months where both do."""
    for form in _FORMATS:
        try:
            for text in texts[:: max(1, len(texts) // 200)]:
                datetime.strptime(text, form)
        except ValueError:
            continue
        return form
    return None
