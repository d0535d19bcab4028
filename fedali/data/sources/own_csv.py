"""The user's own recordings as CSV: a row per raw sample, cut into windows."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.windows import cut_windows, window_starts
from fedali.errors import DataError, did_you_mean

SPECIAL = ("client", "label", "recording", "time")
"""Columns that are no channels."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class Piece:
    """What one file gives: n samples with labels (all integers or all strings) and owners, in the file's order.

    ``everyone`` names each client that the file mentions, also one that is left without a whole window; ``remedy`` is
    what to do about that.
    """

    where: str
    x: npt.NDArray[Any]
    labels: list[Any]
    clients: list[str]
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: int
    everyone: tuple[str, ...]
    channel_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class _Table:
    """The rows of a CSV: channels [n, c] float32, and per row its line, client, label, recording and time (or None)."""

    channel_names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    lines: list[int]
    clients: list[str]
    labels: list[Any]
    recordings: list[str]
    times: list[float] | None


def read_csv(path: Path, window: int, stride: int, client: str | None) -> Piece:
    """Windows [n, window, c] float32 of one CSV; with ``client`` it is that client's file and has no such column.

    Raises ``DataError`` naming the line for whatever is wrong with the file.
    """
    table = _read_table(path, client)
    group = _numbered(list(zip(table.clients, table.recordings, strict=True)))
    label = _numbered(table.labels)
    new_recording = np.concatenate([[True], np.diff(group) != 0])
    new_stretch = new_recording | np.concatenate([[True], np.diff(label) != 0])
    _check_time(path, table, new_recording)
    recording = np.cumsum(new_recording) - 1
    begin_of_recording = np.flatnonzero(new_recording)[recording]
    begins = np.flatnonzero(new_stretch).tolist()
    parts, at = [], []
    for begin, end in zip(begins, [*begins[1:], len(label)], strict=True):
        parts.append(cut_windows(table.values[begin:end], window, stride))
        at.append(begin + window_starts(end - begin, window, stride))
    rows = np.concatenate(at)
    return Piece(
        where=str(path),
        x=np.concatenate(parts),
        labels=[table.labels[i] for i in rows.tolist()],
        clients=[table.clients[i] for i in rows.tolist()],
        recording=recording[rows],
        start=rows - begin_of_recording[rows],
        length=window,
        everyone=tuple(dict.fromkeys(table.clients)),
        channel_names=table.channel_names,
        remedy=f"a window needs {window} rows in a row of one client, label and recording: sort the rows, shorten the window, ",
    )


def check_csv(path: Path, client: str | None) -> None:
    """Look at the header alone. Raises ``DataError`` for one that ``read_csv`` would refuse."""
    with _opened(path) as reader:
        _check_header(path, [cell.strip() for cell in next(reader, [])], client)


def _numbered(keys: Sequence[Any]) -> npt.NDArray[np.int64]:
    """A number for each distinct key."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _read_table(path: Path, client: str | None) -> _Table:
    with _opened(path) as reader:
        return _parse(path, reader, client)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A reader of a file's rows; what it raises becomes a ``DataError``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield csv.reader(stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} is no CSV ({error}); save it as comma-separated text") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _parse(path: Path, reader: Any, client: str | None) -> _Table:
    header = [cell.strip() for cell in next(reader, [])]
    columns = _check_header(path, header, client)
    channels = [i for i, name in enumerate(header) if name not in SPECIAL]
    values, lines, clients, labels, recordings, times = [], [], [], [], [], []
    for row in reader:
        if not row:
            continue
        line = reader.line_num
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells where the header has {len(header)}; repair the line"
            )
        values.append([_number(path, line, header[i], row[i]) for i in channels])
        lines.append(line)
        clients.append(client if client is not None else _text(path, line, "client", row[columns["client"]]))
        labels.append(_label(path, line, row[columns["label"]]))
        recordings.append(row[columns["recording"]].strip() if "recording" in columns else "")
        if "time" in columns:
            times.append(_moment(path, line, row[columns["time"]]))
    if not values:
        raise DataError(f"{path} has no rows below its header; add samples")
    if not all(isinstance(label, int) for label in labels):
        labels = [str(label) for label in labels]
    with np.errstate(over="ignore"):  # becomes infinite, which the data set refuses
        array = np.array(values, np.float64).astype(np.float32)
    names = tuple(header[i] for i in channels)
    return _Table(names, array, lines, clients, labels, recordings, times if "time" in columns else None)


def _check_header(path: Path, header: Sequence[str], client: str | None) -> dict[str, int]:
    """Where the special columns stand."""
    if not any(header):
        raise DataError(f"{path} is empty; its first line must name the columns")
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} appears twice; rename one")
    if client is not None and "client" in header:
        raise DataError(f"{path} has a column 'client', but the file's name is the client; remove the column")
    for name in ("label",) if client is not None else ("client", "label"):
        if name not in header:
            raise DataError(f"{path} lacks the column {name!r}; {did_you_mean(name, header)}")
    if all(name in SPECIAL for name in header):
        raise DataError(f"{path} has no channels; add a column for each measured quantity")
    return {name: header.index(name) for name in SPECIAL if name in header}


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        shown = repr(cell.strip()) if cell.strip() else "empty"
        raise DataError(
            f"{path}, line {line}: column {column!r} is {shown}, not a finite number; repair or remove the line"
        )
    return value


def _text(path: Path, line: int, column: str, cell: str) -> str:
    if not cell.strip():
        raise DataError(f"{path}, line {line}: {column} is empty; fill it in")
    return cell.strip()


def _label(path: Path, line: int, cell: str) -> int | str:
    text = _text(path, line, "label", cell)
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        float(text)
    except ValueError:
        return text
    raise DataError(f"{path}, line {line}: label {text!r} is neither a whole number nor a name; make it one")


def _moment(path: Path, line: int, cell: str) -> float:
    """A time as a number: seconds or any other unit, or ISO 8601."""
    try:
        return _number(path, line, "time", cell)
    except DataError:
        try:
            return datetime.fromisoformat(cell.strip()).timestamp()
        except ValueError:
            pass
        raise


def _check_time(path: Path, table: _Table, new_recording: npt.NDArray[np.bool_]) -> None:
    """Raise ``DataError`` where time does not go on within a recording."""
    if table.times is None:
        return
    back = ~new_recording[1:] & (np.diff(np.array(table.times)) <= 0)
    if back.any():
        line = table.lines[int(np.argmax(back)) + 1]
        raise DataError(
            f"{path}, line {line}: time does not increase; sort the rows, or start a new recording there"
        )
