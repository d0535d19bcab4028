"""Which column of a CSV is what; none that may be an index, a clock or the label is silently taken for a channel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.sources.own_numbers import grouped
from fedali.data.sources.own_targets import target_columns
from fedali.data.sources.reading import ITSELF, ROLES, Columns, ForModel
from fedali.errors import DataError, MisfitError, did_you_mean

_ENOUGH = 32  # steps from row to row: fewer say nothing of a column
_MOST = 0.95  # of its steps; counters start anew and clocks are set
_MOVES = 0.3  # of its steps are upwards, where some are downwards
_SOME = 0.02  # of its steps, where none is: a clock in packets stands still between them
_TIME = re.compile(
    r"time|date|epoch|clock|elapsed|second|millis|micros|nanos|(^|[^a-z])(ts|utc|gmt|[mun]?secs?)([^a-z]|$)"
)
_INDEX = re.compile(
    r"(unnamed.*|level_[0-9]+|index|idx|rownames?|row([ _]?(id|no|nr|num|number))?|id|no|nr|n|#|seq.*|.*counter|sample)"
)
_DATE = re.compile(r"[0-9]+[-/:.][0-9]+[-/:.][0-9]+")
_WORD = re.compile(r"\s*[^\W\d_]")
_WITHOUT = {
    "recording": "the file is taken as one recording of each client",
    "time": "pauses cannot be seen, and no window is kept from crossing one",
}
_MARKS = "'\"$~^|!%&/ "  # around a number
_KEY = 0.3  # of its rows: words that change as often say what the row holds, in a table in long form
_NUMBERS = {"nan", "inf", "infinity", "na", "null", "none"}  # words that stand where a number is missing


@dataclass(frozen=True)
class Roles:
    """Where columns stand: ``at`` of those with a role, ``channels`` that may be ones, ``targets``; ``notes`` on what was left out."""

    at: dict[str, int]
    channels: tuple[int, ...]
    notes: tuple[str, ...] = ()
    targets: tuple[int, ...] = ()


def nameless(name: str) -> bool:
    """Whether a column has no name, or one that pandas gave it.

    >>> nameless(""), nameless("Unnamed: 0"), nameless("x")
    (True, True, False)
    """
    return not name or re.fullmatch(r"unnamed: ?[\d.]+(_level_[\d.]+)?", name.lower()) is not None


def names_time(name: str) -> bool:
    """Whether the name of a column is one of times.

    >>> names_time("seconds_elapsed"), names_time("x")
    (True, False)
    """
    return _TIME.search(name.lower()) is not None


def has_roles(cells: Sequence[str], client: str | None, columns: Columns, model: ForModel = ITSELF) -> bool:
    """Whether a line names the columns that a header has to name; never where it has to name none."""
    needed = [getattr(columns, role) for role in ROLES if role not in model.may_lack]
    needed += list(columns.channels or ())
    needed += list(columns.target or ()) if "label" not in model.may_lack else []
    if any(name is not None and name not in cells for name in needed):
        return False
    roles = [role for role in _needed(client, columns) if role not in model.may_lack]
    known = [cell.lower() for cell in cells]
    return bool(roles or any(needed)) and all(getattr(columns, role) or role in known for role in roles)


def _needed(client: str | None, columns: Columns) -> tuple[str, ...]:
    label = () if columns.target else ("label",)
    return label if client is not None else ("client", *label)


def roles_of(
    path: Path, header: Sequence[str], client: str | None, columns: Columns, model: ForModel = ITSELF
) -> Roles:
    """What the header says. Raises ``DataError`` for columns that are missing or there twice."""
    if not any(header):
        raise DataError(f"{path} is empty; its first line must name the columns")
    values = [cell for cell in header if _is_number(cell)]
    counted = len(values) > 1 and values == [str(k) for k in range(len(values))]
    if values and not counted and not has_roles(header, client, columns, model):
        raise DataError(
            f"{path}: its first line has values ({values[0]!r}), no names; name all columns, in their order: "
            'data.header = ["client", "label", ...]'
        )
    twice = [name for i, name in enumerate(header) if name and name in header[:i]]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} appears twice; rename one")
    at = {role: i for role in ROLES if (i := _place(path, header, role, columns, model)) is not None}
    used: dict[int, str] = {}
    for role, i in at.items():
        if i in used:
            raise DataError(
                f"{path}: data.columns names {header[i]!r} as {used[i]} and as {role}; name another"
            )
        used[i] = role
    if client is not None and "client" in at and not model.owners:
        raise DataError(
            f"{path} has a column {header[at['client']]!r}, but the file's name is the client; remove the column"
        )
    one = " (all in one column: data.separator says what is between them)"
    for name in _needed(client, columns):
        if name not in at and name not in model.may_lack:
            raise DataError(
                f"{path} lacks the column {name!r} (data.columns.{name} gives it another name); "
                f"{did_you_mean(name, filter(None, header))}{'' if len(header) > 1 else one}"
            )
    notes = [
        f"column {header[i]!r} is taken as {role}"
        for role, i in at.items()
        if header[i].lower() == role != header[i]
    ]
    notes += [
        f"there is no column {getattr(columns, role)!r}: {_WITHOUT[role]}" for role in _lacking(at, columns)
    ]
    targets = target_columns(path, header, columns, model)
    for i in targets:
        if i in used:
            raise DataError(
                f"{path}: data.columns names {header[i]!r} as {used[i]} and as a target; name another"
            )
    rest = [i for i in range(len(header)) if i not in at.values() and i not in targets]
    if columns.channels is not None:
        return Roles(
            at,
            _named(path, header, rest, columns.channels, model),
            (*notes, *_unnamed(header, rest, columns.channels, model)),
            targets,
        )
    spare = [i for i in rest if header[i] in ROLES]
    notes += [
        f"column {header[i]!r} is left out: data.columns names another one as {header[i]}" for i in spare
    ]
    rest = [i for i in rest if i not in spare]
    if not rest:
        raise DataError(f"{path} has no channels; add a column for each measured quantity")
    return Roles(at, tuple(rest), tuple(notes), targets)


def _lacking(at: Mapping[str, int], columns: Columns) -> list[str]:
    """Roles that have a name and no column, of those that somebody may miss."""
    return [role for role in _WITHOUT if getattr(columns, role) is not None and role not in at]


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip(_MARKS).replace(",", "."))
    except ValueError:
        return False
    return True


def _place(path: Path, header: Sequence[str], role: str, columns: Columns, model: ForModel) -> int | None:
    if role == "label" and columns.target:
        return None
    name = getattr(columns, role)
    if name is not None and (name in header or role not in model.may_lack):
        if name not in header:
            known = did_you_mean(name, filter(None, header))
            raise DataError(f"{path} lacks the column {name!r} that data.columns.{role} names; {known}")
        return header.index(name)
    if role in header:
        return header.index(role)
    alike = [i for i, other in enumerate(header) if other.lower() == role]
    return alike[0] if len(alike) == 1 else None


def _named(
    path: Path, header: Sequence[str], rest: Sequence[int], channels: Sequence[str], model: ForModel
) -> tuple[int, ...]:
    for name in channels:
        if name not in header:
            known = did_you_mean(name, (header[i] for i in rest if header[i]))
            if model.channels:
                raise MisfitError(
                    f"{path} lacks the channel {name!r} that the model takes; {known}{'' if known.endswith('?') else ';'} data.columns.channels names those that it "
                    f"has for {', '.join(channels)}, in this order",
                    "this device's data lack a channel that the federation's have",
                )
            raise DataError(f"{path} lacks the column {name!r} that data.columns.channels names; {known}")
        if header.index(name) not in rest:
            raise DataError(
                f"{path}: the column {name!r} is no channel, it has another role; take it out of data.columns.channels"
            )
    if not channels or len(set(channels)) < len(channels):
        raise DataError(
            f"{path}: data.columns.channels has to name one channel or more, each once; it is {list(channels)}"
        )
    return tuple(header.index(name) for name in channels)


def _unnamed(
    header: Sequence[str], rest: Sequence[int], channels: Sequence[str], model: ForModel
) -> list[str]:
    left = [header[i] or f"number {i + 1}" for i in rest if header[i] not in channels]
    whose = "that the model does not take" if model.channels else "that data.columns.channels does not name"
    return [f"columns {whose} are left out: {', '.join(left)}"] if left else []


def without_words(
    path: Path,
    header: Sequence[str],
    roles: Roles,
    rows: Sequence[Sequence[str]],
    number: Callable[[str], object],
    *,
    dateless: bool = False,
) -> Roles:
    """Channels without those that hold no ``number`` in the first ``rows``: words, dates, or nothing at all without a name.

    ``dateless`` is whether the column of times is known to have no dates.

    Raises ``DataError`` for one that may be the time, or is none of these.
    """
    kept, notes = [], []
    found = {i: sorted({row[i].strip() for row in rows} - {""}) for i in roles.channels}
    numeric = [
        i for i, words in found.items() if not words or any(number(word) is not None for word in words)
    ]
    for i, words in found.items():
        what = f"column {header[i]!r}" if header[i] else f"column {i + 1}"
        others = [header[j] for j in numeric if j != i and not nameless(header[j])]
        channels = f"data.columns.channels = {_listed(others)}"
        if nameless(header[i]) and rows and not words:
            notes.append(f"{what} is left out: it has no name and is empty")
        elif i in numeric:
            kept.append(i)
        elif is_key([row[i] for row in rows]):
            raise DataError(
                f"{path}: {what} has words that change from row to row ({', '.join(words[:3])}): if they say what the row holds, give each a "
                f"column of its own (pivot the table), if not leave it out: {channels}"
            )
        elif all(_WORD.match(word) and word.lower() not in _NUMBERS for word in words):
            notes.append(f"{what} is left out: it holds words ({words[0]!r}), no numbers")
        elif not all(_DATE.match(word) for word in words):
            how = (
                "write them without a sign between thousands"
                if any(map(grouped, words))
                else "write plain ones"
            )
            raise DataError(
                f"{path}: {what} holds no numbers ({words[0]!r}); {how}, or leave it out: {channels}"
            )
        elif "time" in roles.at and dateless and not any(":" in word for word in words):
            raise DataError(
                f"{path}: {what} has the dates of the times of day in {header[roles.at['time']]!r}; join the two in one column, or leave it "
                f"out: {channels}"
            )
        elif "time" in roles.at:
            notes.append(f"{what} is left out: it is a clock, no channel")
        else:
            raise DataError(
                f"{path}: {what} is a clock, no channel; {_as_time(header[i])}, or leave it out: {channels}"
            )
    if not kept:
        raise DataError(f"{path} has no channels; add a column for each measured quantity")
    return Roles(roles.at, tuple(kept), (*roles.notes, *notes), roles.targets)


def judged(
    path: Path,
    header: Sequence[str],
    roles: Roles,
    values: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    label: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Which of the channels [c] that ``values`` [n, c] are of are kept, and notes on the others.

    ``group`` [n] numbers the recordings of the rows, ``label`` [n] their labels. Raises ``DataError`` for a column that may be a
    channel or none.
    """
    keep, notes = np.ones(len(roles.channels), bool), []
    gone = np.isnan(values).all(axis=0)
    if gone.any():
        name = header[roles.channels[int(np.argmax(gone))]]
        raise DataError(
            f"{path}: column {name!r} holds nothing but missing values; remove it, or leave it out of data.columns.channels"
        )
    order = np.argsort(group, kind="stable")
    together = np.diff(group[order]) == 0
    border = ~together | (np.diff(label[order]) != 0)
    kinds = {
        i: kind_of(header[i], values[:, k], np.diff(values[order, k])[together], label)
        for k, i in enumerate(roles.channels)
    }
    measured = [i for i, kind in kinds.items() if not kind and not nameless(header[i])]
    for k, (i, kind) in enumerate(kinds.items()):
        name, column = header[i], values[:, k]
        others = [header[j] for j in measured if j != i]
        channels = f"data.columns.channels = {_listed(others)}"
        what = f"column {name!r}" if name else f"column {i + 1}"
        if nameless(name):
            if kind != "index":
                raise DataError(
                    f"{path}: {what} has no name, and may be a channel or none; name it, or say which are the channels: {channels}"
                )
        elif kind == "label":
            raise DataError(
                f"{path}: {what} has one value for each label, so that it may be the label in numbers; leave it out, or name "
                f"it too if it was measured: {channels}"
            )
        elif kind == "clock" and _TIME.search(name.lower()):
            if "time" not in roles.at:
                raise DataError(
                    f"{path}: {what} is a clock, no channel; {_as_time(name)}, or leave it out: {channels}"
                )
        elif kind and not (kind == "index" and _INDEX.fullmatch(name.lower())):
            down = np.nansum(np.diff(column[order])[together]) < 0
            looks = (
                f"counts {'down' if down else 'up'} by one, like an index"
                if kind == "index"
                else f"only {'falls' if down else 'rises'}, like a clock or a counter"
            )
            raise DataError(
                f"{path}: {what} {looks}; if it is a clock say data.columns.time = {name!r}, if not leave it out, or name it "
                f"too if it was measured: {channels}"
            )
        if nameless(name) or kind:
            keep[k] = False
            notes.append(
                f"{what} is left out: it is {'an index' if kind == 'index' else 'a clock'}, no channel"
            )
        elif _is_state(column[order], border):
            notes.append(
                f"{what} is a channel, and rarely changes; if it was not measured leave it out: {channels}"
            )
    if not keep.any():
        raise DataError(f"{path} has no channels; add a column for each measured quantity")
    return keep, notes


def kind_of(
    name: str, column: npt.NDArray[np.float64], steps: npt.NDArray[np.float64], label: npt.NDArray[np.int64]
) -> str:
    """``index``, ``clock``, ``label``, or nothing for what may be measured."""
    steps, label, column = steps[~np.isnan(steps)], label[~np.isnan(column)], column[~np.isnan(column)]
    whole = bool((column == np.rint(column)).all())
    if nameless(name) and whole and len(np.unique(column)) == len(column):
        return "index"
    if len(steps) < _ENOUGH:
        return ""
    if whole and max(np.mean(steps == 1), np.mean(steps == -1)) >= _MOST:
        return "index"
    rises, falls = np.mean(steps > 0), np.mean(steps < 0)
    often = 0 if _TIME.search(name.lower()) else _SOME if falls == 0 else _MOVES
    if (falls <= 1 - _MOST and rises > often) or falls >= _MOST:
        return "index" if whole and (nameless(name) or _INDEX.fullmatch(name.lower())) else "clock"
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    of_label = column[first]
    return "label" if bool((of_label[place] == column).all()) and len(np.unique(of_label)) > 1 else ""


def _is_state(column: npt.NDArray[np.float64], border: npt.NDArray[np.bool_]) -> bool:
    """Whether a column has few whole numbers that rarely change, as a number of a person or a trial has; or any that change only from
    one client, recording or label to the next, at a ``border`` [n - 1], as an age does.
    """
    moves = np.diff(column) != 0
    if len(column) >= _ENOUGH and moves.any() and not moves[~border].any():
        return True
    column = column[~np.isnan(column)]
    changes = np.count_nonzero(np.diff(column))
    return bool(len(column) >= 100 and 0 < changes <= len(column) / 100 and (column == np.rint(column)).all())


def _as_time(name: str) -> str:
    """What to do with a clock that is called ``name``."""
    return f"say so: data.columns.time = {name!r}" if name else "name it, such as time"


def is_key(cells: Sequence[str]) -> bool:
    """Whether words change from row to row, as those that say what a row holds in a table in long form.

    >>> is_key(["x", "y", "z"] * 9), is_key(["on"] * 9 + ["off"] * 9 + ["hold"] * 9)
    (True, False)
    """
    words = {cell.strip() for cell in cells} - {""}
    changes = sum(one != other for one, other in pairwise(cells))
    return len(words) > 2 and changes > _KEY * len(cells) and all(map(_WORD.match, words))


def _listed(names: Sequence[Any]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
