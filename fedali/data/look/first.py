"""A first look at a CSV that is refused as it is: what each column holds, and a guess at the settings that read it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fedali.data.look.columns import ColumnFacts, column_facts
from fedali.data.look.guesses import guess_roles, guess_values, names_clock
from fedali.data.sources.own import CSV, FEWEST_WINDOWS, client_files, ending_of, stem_of
from fedali.data.sources.own_columns import is_key, kind_of, nameless
from fedali.data.sources.own_csv import read_csv
from fedali.data.sources.own_numbers import Numbers, is_comma
from fedali.data.sources.own_table import numbered, read_table
from fedali.data.sources.own_text import Sheet, open_sheet
from fedali.data.sources.reading import ROLES, Reading
from fedali.data.sources.unpacking import unpacked
from fedali.errors import DataError

MOST = 20_000
"""Rows that are looked at."""

WINDOWS = (128, 64, 32, 16, 8)
"""Rows of windows that a guess may be."""

_CELLS, _FEWEST = (
    2_000_000,
    500,
)  # that are looked at of a file with many columns, and rows of it all the same
_BYTES = 1 << 22  # of a file, in which letters are looked at
_PEEK = 200  # cells in which a decimal sign is looked for
_POINTED = re.compile(r"[+-]?[0-9]*\.[0-9]+")


@dataclass(frozen=True)
class FirstLook:
    """What is in a CSV, and how it might be read.

    Args:
        where: its path.
        rows: that were looked at; ``all`` says whether there are no more.
        separator: between columns.
        decimal: sign before decimals.
        encoding: of its text.
        header: the line that names the columns, from 1; 0 where none does.
        columns: what each holds, and is for.
        guess: settings by their names under ``data`` in a scenario; all are guesses.
        refusal: what is wrong with the rows that were looked at when they are read by the guess; "" where nothing is.
    """

    where: str
    rows: int
    all: bool
    separator: str
    decimal: str
    encoding: str
    header: int
    columns: tuple[ColumnFacts, ...]
    guess: dict[str, Any]
    refusal: str


def first_look(
    path: Path, client: str | None, reading: Reading, window: int, stride: int
) -> FirstLook | None:
    """A look at the first rows of ``path``; with ``client`` the file is that client's. What ``reading`` says stays, and is no guess.

    None where there is not even a header to see.
    """
    guess: dict[str, Any] = {}
    if reading.encoding is None and (encoding := _encoding(path)) is not None:
        guess["encoding"], reading = encoding, replace(reading, encoding=encoding)
    try:
        sheet, rows, whole = _rows(path, reading)
        if len(sheet.header) < 2 and reading.separator is None:
            guess["separator"], reading = " ", replace(reading, separator=" ")
            sheet, rows, whole = _rows(path, reading)
        headless = reading.header is None and any(Numbers()(cell) is not None for cell in sheet.header)
        if headless:
            guess["header"] = [f"column_{k + 1}" for k in range(len(sheet.header))]
            reading = replace(reading, header=tuple(guess["header"]))
            sheet, rows, whole = _rows(path, reading)
    except DataError:
        return None
    if len(sheet.header) < 2 or not rows:
        return None
    cells = list(zip(*rows, strict=True))
    comma = reading.decimal == "," or (reading.decimal is None and _has_commas(cells))
    facts = [column_facts(name, texts, comma=comma) for name, texts in zip(sheet.header, cells, strict=True)]
    columns = _without_clocks(guess_roles(facts, reading, client=client is None), cells, Numbers(comma))
    looked = FirstLook(
        where=str(path),
        rows=len(rows),
        all=whole,
        separator=sheet.separator,
        decimal="," if comma else ".",
        encoding=sheet.encoding,
        header=sheet.line,
        columns=tuple(columns),
        guess=guess | guess_values(columns, cells, reading),
        refusal="",
    )
    why = ""
    if headless:
        why = "no line names the columns: data.header does, some of them client, label and time"
        looked = replace(looked, columns=tuple(facts), guess=guess)
    elif client is None and not any(column.role == "client" for column in columns):
        why = "no column looks like a client's: name it by data.columns.client, or put a file for each client, <client>.csv, into a folder"
    keys = [
        c.name
        for c, texts in zip(columns, cells, strict=True)
        if not c.role and c.holds == "text" and is_key(texts)
    ]
    if keys and not why:
        why = f"words in column {keys[0]!r} change from row to row: if they say what the row holds, give each a column of its own"
    if why:
        return replace(looked, refusal=why)
    return _tried(looked, path, client, reading, window, stride)


def with_guess(reading: Reading, guess: Mapping[str, Any]) -> Reading:
    """``reading`` with guessed settings over it."""
    changes: dict[str, Any] = {
        key: tuple(map(str, value)) if isinstance(value, list) else value
        for key, value in guess.items()
        if key not in ("window", "stride")
    }
    names: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in guess.get("columns", {}).items()
    }
    changes["columns"] = replace(reading.columns, **names)
    return replace(reading, **changes)


def _rows(path: Path, reading: Reading) -> tuple[Sheet, list[list[str]], bool]:
    """The first rows that have a cell for each column, and whether there are no more."""
    with open_sheet(path, reading, lambda cells: False) as sheet:
        most = min(MOST, max(_FEWEST, _CELLS // max(len(sheet.header), 1)))
        rows = [row for _, row in islice(sheet.rows, most)]
        whole = next(sheet.rows, None) is None
    return sheet, [row for row in rows if len(row) == len(sheet.header)], whole


def _without_clocks(
    columns: Sequence[ColumnFacts], cells: Sequence[Sequence[str]], number: Numbers
) -> list[ColumnFacts]:
    """The columns; of what was taken for a channel, an index, a clock and the label in numbers no longer are.

    A clock may be the time, where there is none.
    """
    at = {column.role: i for i, column in enumerate(columns) if column.role != "channel"}
    owners = [cells[at[role]] for role in ("client", "recording") if role in at]
    none = ("",) * len(cells[0])
    group, label = (
        numbered(list(zip(none, *owners, strict=True))),
        numbered(cells[at["label"]] if "label" in at else none),
    )
    order = np.argsort(group, kind="stable")
    together = np.diff(group[order]) == 0
    found, timed = [], "time" in at
    for column, texts in zip(columns, cells, strict=True):
        kind, named = "", nameless(column.name)
        if column.role == "channel" and not column.certain:
            values = np.array([np.nan if (value := number(text)) is None else value for text in texts])
            kind = kind_of(column.name, values, np.diff(values[order])[together], label)
        clock = kind == "clock" and not timed and names_clock(column.name)
        timed |= clock
        found.append(
            replace(column, role="time" if clock else "")
            if kind or (named and not column.certain)
            else column
        )
    return found


def _tried(
    looked: FirstLook, path: Path, client: str | None, reading: Reading, window: int, stride: int
) -> FirstLook:
    """With the fewest guesses that read the first rows: names of columns, then which are channels, then no time, then shorter windows."""
    named = {c.role: c.name for c in looked.columns if not c.certain}
    roles: dict[str, Any] = {role: named[role] for role in ROLES if role in named}
    channels = [c.name for c in looked.columns if c.role == "channel"]
    timeless = {role: name for role, name in roles.items() if role != "time"}
    tries = [roles, {**roles, "channels": channels}, {**timeless, "channels": channels}]
    refusal = ""
    for columns in tries if reading.columns.channels is None else tries[:1]:
        guess = {**({"columns": columns} if columns else {}), **looked.guess}
        try:
            piece = read_csv(path, window, stride, client, with_guess(reading, guess), most=looked.rows)
        except DataError as error:
            refusal = refusal or str(error)
            continue
        if columns is roles and reading.columns.channels is None and piece.channel_names != tuple(channels):
            continue
        shorter = _shorter(looked, path, client, with_guess(reading, guess), window, stride)
        return replace(looked, guess={**shorter, **guess}, columns=_by_guess(looked.columns, columns))
    return replace(looked, refusal=refusal)


def _by_guess(columns: Sequence[ColumnFacts], guess: Mapping[str, Any]) -> tuple[ColumnFacts, ...]:
    """The columns, without a time where that could not be one."""
    return tuple(
        replace(c, role="") if c.role == "time" and not c.certain and "time" not in guess else c
        for c in columns
    )


def _shorter(
    looked: FirstLook, path: Path, client: str | None, reading: Reading, window: int, stride: int
) -> dict[str, int]:
    """Windows that each client has enough of, where it has not with the given ones; nothing where none are short enough."""
    for length in (window, *(n for n in WINDOWS if n < window)):
        step = stride if length == window else length // 2
        piece = read_csv(path, length, step, client, reading, most=looked.rows)
        whole = piece.everyone[:-1] if len(piece.everyone) > 1 and not looked.all else piece.everyone
        if all(piece.clients.count(one) >= FEWEST_WINDOWS for one in whole):
            return {} if length == window else {"window": length, "stride": step}
    return {}


def _encoding(path: Path) -> str | None:
    """A guess at the encoding of a file without a mark that is no UTF-8; None for one that may be."""
    try:
        with unpacked(path) as stream:
            some = stream.read(_BYTES)
    except (DataError, OSError):
        return None
    if some.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return None
    if b"\0" in some[:4]:
        return "utf-16-be" if some[:1] == b"\0" else "utf-16-le"
    for encoding in ("utf-8", "cp1252", "latin-1"):
        try:
            codecs.getincrementaldecoder(encoding)().decode(some)
        except UnicodeError:
            continue
        break
    return None if encoding == "utf-8" else encoding


def _has_commas(cells: Sequence[Sequence[str]]) -> bool:
    """Whether some column has numbers with a decimal comma, and none with a point."""
    for texts in cells:
        some = [text.strip() for text in texts[:_PEEK]]
        if any(map(is_comma, some)):
            return not any(_POINTED.fullmatch(text) for text in some)
    return False


def refused_file(path: Path, reading: Reading) -> tuple[Path, str | None] | None:
    """The CSV to look at first where ``path``, a file or a folder, is refused, and its client; None where there is none.

    Of a folder that is the first file whose first rows are refused, else the first.
    """
    if not path.is_dir():
        return (path, None) if ending_of(path) in CSV and path.is_file() else None
    try:
        files = [file for file in client_files(path) if ending_of(file) in CSV]
    except DataError:
        return None
    for file in files:
        try:
            read_table(file, stem_of(file), reading, most=MOST)
        except DataError:
            return file, stem_of(file)
    return (files[0], stem_of(files[0])) if files else None
