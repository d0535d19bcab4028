"""The user's own recordings as CSV: a row per raw sample, cut into windows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.labels import Label, is_unlabelled, label_of
from fedali.data.sources.own_columns import judged, roles_of, without_words
from fedali.data.sources.own_time import check_order, in_order, iso_moment, pauses
from fedali.data.sources.reading import Reading
from fedali.data.windows import cut_windows, window_starts
from fedali.errors import DataError

_PEEK = 200  # rows that are looked at before any is read


@dataclass(frozen=True, eq=False)
class Piece:
    """What one file gives: n samples with labels (all integers or all strings) and owners, in the file's order.

    ``everyone`` names each client that the file mentions, also one that is left without a whole window; ``remedy`` is
    what to do about that. ``notes`` say what was left out, and why; ``short`` has the rows of each stretch that is shorter than
    a window, by its label.
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
    notes: tuple[str, ...] = ()
    short: Mapping[int | str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Table:
    """The rows of a CSV: channels [n, c] float32, and per row its line, client, label, recording and time (or None).

    ``group`` [n] numbers the pairs of client and recording.
    """

    channel_names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    group: npt.NDArray[np.int64]
    lines: list[int]
    clients: list[str]
    labels: list[Any]
    recordings: list[str]
    times: list[float] | None
    notes: tuple[str, ...]


def read_csv(path: Path, window: int, stride: int, client: str | None, reading: Reading) -> Piece:
    """Windows [n, window, c] float32 of one CSV; with ``client`` it is that client's file and has no such column.

    Raises ``DataError`` naming the line for whatever is wrong with the file.
    """
    with _opened(path) as reader:
        table = _parse(path, reader, client, reading)
    label = _numbered(table.labels)
    new_recording = np.concatenate([[True], np.diff(table.group) != 0])
    new_stretch = new_recording | np.concatenate([[True], np.diff(label) != 0])
    recording = np.cumsum(new_recording) - 1
    begin_of_recording = np.flatnonzero(new_recording)[recording]
    notes = list(table.notes)
    if table.times is not None:
        times = np.array(table.times)
        check_order(path, times, table.lines, new_recording)
        paused = pauses(times, recording, reading.gap)
        new_stretch |= paused
        recording, without = in_order(times, recording, _numbered(table.clients))
        notes += _on_time(int(paused.sum()), reading.gap, without)
    begins = np.flatnonzero(new_stretch).tolist()
    parts, at = [table.values[:0, None].repeat(window, 1)], [np.zeros(0, np.int64)]
    short: dict[int | str, list[int]] = {}
    for begin, end in zip(begins, [*begins[1:], len(label)], strict=True):
        if table.labels[begin] is None:
            continue
        if end - begin < window:
            short.setdefault(table.labels[begin], []).append(end - begin)
        parts.append(cut_windows(table.values[begin:end], window, stride))
        at.append(begin + window_starts(end - begin, window, stride))
    rows = np.concatenate(at)
    notes += _left_out(table.labels, short, window)
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
        remedy=f"a window needs {window} rows in a row of one client, label and recording, without a pause: sort the rows, shorten the window, ",
        notes=tuple(notes),
        short=short,
    )


def check_csv(path: Path, client: str | None, reading: Reading) -> None:
    """Look at the header alone. Raises ``DataError`` for one that ``read_csv`` would refuse."""
    with _opened(path) as reader:
        roles_of(path, [cell.strip() for cell in next(reader, [])], client, reading.columns)


def _numbered(keys: Sequence[Any]) -> npt.NDArray[np.int64]:
    """A number for each distinct key."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


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


def _parse(path: Path, reader: Any, client: str | None, reading: Reading) -> _Table:
    header = [cell.strip() for cell in next(reader, [])]
    roles = roles_of(path, header, client, reading.columns)
    first = [(reader.line_num, row) for row in islice(reader, _PEEK)]
    if reading.columns.channels is None:
        roles = without_words(header, roles, [row for _, row in first], path)
    columns, channels = roles.at, roles.channels
    values, lines, clients, labels, recordings, times = [], [], [], [], [], []
    known: dict[str, Label | None] = {}
    for line, row in chain(first, ((reader.line_num, row) for row in reader)):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells where the header has {len(header)}; repair the line"
            )
        values.append([_number(path, line, header[i], row[i]) for i in channels])
        lines.append(line)
        clients.append(client if client is not None else _text(path, line, "client", row[columns["client"]]))
        text = row[columns["label"]].strip()
        if text not in known:
            known[text] = _label(f"{path}, line {line}: label", text, reading)
        labels.append(known[text])
        recordings.append(row[columns["recording"]].strip() if "recording" in columns else "")
        if "time" in columns:
            times.append(_moment(path, line, row[columns["time"]]))
    if not values:
        raise DataError(f"{path} has no rows below its header; add samples")
    if not all(isinstance(label, int) for label in labels if label is not None):
        labels = [None if label is None else str(label) for label in labels]
    group = _numbered(list(zip(clients, recordings, strict=True)))
    numbers, names, notes = np.array(values, np.float64), [header[i] for i in channels], roles.notes
    if reading.columns.channels is None:
        keep, more = judged(path, header, roles, numbers, group, _numbered(labels))
        numbers, names, notes = numbers[:, keep], list(compress(names, keep)), (*notes, *more)
    with np.errstate(over="ignore"):  # becomes infinite, which the data set refuses
        array = numbers.astype(np.float32)
    moments = times if "time" in columns else None
    return _Table(tuple(names), array, group, lines, clients, labels, recordings, moments, notes)


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


def _label(where: str, text: str, reading: Reading) -> Label | None:
    if is_unlabelled(text, reading.unlabelled, where):
        return None
    label = label_of(text)
    if label is None:
        raise DataError(f"{where} {text!r} is neither a whole number nor a name; make it one")
    return label


def _moment(path: Path, line: int, cell: str) -> float:
    """A time as a number: seconds or any other unit, or ISO 8601."""
    try:
        return _number(path, line, "time", cell)
    except DataError:
        moment = iso_moment(cell.strip())
        if moment is None:
            raise
        return moment


def _on_time(gaps: int, gap: float, without: int) -> list[str]:
    notes = []
    if gaps:
        some = f"{gaps} pauses" if gaps > 1 else "a pause"
        notes.append(
            f"windows are cut anew after {some} of more than {gap:g} median intervals of a recording (data.gap)"
        )
    if without:
        whose = f"{without} clients" if without > 1 else "a client"
        notes.append(
            f"recordings of {whose} overlap in time, so that they are in the order of the rows, not of their times"
        )
    return notes


def _left_out(labels: Sequence[Label | None], short: Mapping[Label, Sequence[int]], window: int) -> list[str]:
    notes, none = [], sum(label is None for label in labels)
    if none:
        notes.append(f"{none} of {len(labels)} rows are left out: they have no label (data.unlabelled)")
    stretches = [rows for runs in short.values() for rows in runs]
    if stretches:
        some = f"{len(stretches)} stretches" if len(stretches) > 1 else "a stretch"
        notes.append(
            f"{sum(stretches)} of {len(labels)} rows are left out: they are in {some} of one label shorter than {window} rows"
        )
    return notes
