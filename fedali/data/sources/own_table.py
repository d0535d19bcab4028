"""The rows of a CSV, each cell as what its column is for."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.labels import Label, client_of, is_unlabelled, label_of
from fedali.data.look.doubts import coarse
from fedali.data.look.files import SeenFile
from fedali.data.sources.own_columns import Roles, has_roles, judged, roles_of, without_words
from fedali.data.sources.own_numbers import Numbers, check_codes, is_comma, numbers_of
from fedali.data.sources.own_text import Sheet, open_sheet
from fedali.data.sources.own_time import iso_moment
from fedali.data.sources.reading import ITSELF, ForModel, Reading
from fedali.errors import DataError

_SHUFFLED = 0.25  # of the steps from row to row go back in time
_PEEK = 200  # rows that are looked at before any is read
_DIGITS = re.compile(  # of a date and time without a sign between them
    r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]([0-9]{3}|\.[0-9]+)?"
)
_DAY = re.compile(r"%[cdDFjsxyY]")


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a CSV: channels [n, c] float32, NaN for a missing value, and per row its line, client, label (None for
    none), recording and time (all or none).

    ``group`` [n] numbers the pairs of client and recording; ``dated`` is whether times are seconds since 1970 of what were dates, all of
    them; ``seen`` says how the file was read. ``targets`` [n, T] are those of a task without classes, NaN for a missing value.
    """

    channel_names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    group: npt.NDArray[np.int64]
    lines: list[int]
    clients: list[str]
    labels: list[Any]
    recordings: list[str]
    times: list[float] | None
    dated: bool
    seen: SeenFile
    notes: tuple[str, ...]
    targets: npt.NDArray[np.float64] | None = None


def read_table(
    path: Path, client: str | None, reading: Reading, model: ForModel = ITSELF, *, most: int | None = None
) -> Table:
    """A CSV, or its first rows, ``most`` of them; with ``client`` it is that client's file.

    Raises ``DataError`` naming the line for whatever is wrong with it.
    """
    with open_sheet(path, reading, lambda cells: has_roles(cells, client, reading.columns, model)) as sheet:
        return _parse(path, replace(sheet, rows=islice(sheet.rows, most)), client, reading, model)


def check_header(path: Path, client: str | None, reading: Reading, model: ForModel = ITSELF) -> None:
    """Look at the header alone. Raises ``DataError`` for one that ``read_table`` would refuse."""
    with open_sheet(path, reading, lambda cells: has_roles(cells, client, reading.columns, model)) as sheet:
        roles_of(path, sheet.header, client, reading.columns, model)


def numbered(keys: Sequence[Any]) -> npt.NDArray[np.int64]:
    """A number for each distinct key."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def together(table: Table, window: int) -> Table:
    """Rows of a recording side by side, whoever's rows are between them: the same for a client whatever the others have.

    Where neither a column for recordings nor times say which rows belong together, rows that are apart are of several recordings, unless
    those of clients alternate: where stretches of one are half a window on average, or less. Rows of a recording that stand in no order are
    put in that of their times.
    """
    runs = np.diff(np.flatnonzero(np.diff(table.group, prepend=-1, append=-1)))
    known = table.times is not None or any(table.recordings)
    order, notes = np.arange(len(table.group)), list(table.notes)
    if len(runs) > len(np.unique(table.group)) and (known or 2 * runs.mean() <= window):
        order = np.argsort(table.group, kind="stable")
        notes.append("rows of several recordings alternate, and are put together by client and recording")
    times = None if table.times is None else np.array(table.times)
    if times is not None:
        order, shuffled = _in_time(order, times, table.group)
        if shuffled:
            some = f"{shuffled} recordings" if shuffled > 1 else "a recording"
            notes.append(f"rows of {some} stand in no order, and are put in that of their times")
    if (np.diff(order) == 1).all():
        return table
    group = table.group[order]
    if times is not None and not any(
        table.recordings
    ):  # a clock that was set back while others were recorded
        back = (np.diff(times[order], prepend=times[order[0]]) < 0) & (np.diff(order, prepend=-1) != 1)
        group = numbered(list(zip(group.tolist(), np.cumsum(back).tolist(), strict=True)))
    lists: dict[str, Any] = {
        name: [found[i] for i in order.tolist()]
        for name in ("lines", "clients", "labels", "recordings", "times")
        if (found := getattr(table, name)) is not None
    }
    targets = None if table.targets is None else table.targets[order]
    return replace(
        table, values=table.values[order], group=group, notes=tuple(notes), targets=targets, **lists
    )


def _in_time(
    order: npt.NDArray[np.int64], times: npt.NDArray[np.float64], group: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int]:
    """The order of rows with those of shuffled recordings in that of their times, and how many recordings that are.

    Shuffled are those whose time goes back at every fourth row or more, and is never the same twice: a clock that was set back goes back
    now and then.
    """
    ordered, found = order.copy(), 0
    edges = np.flatnonzero(np.diff(group[order])) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(order)], strict=True):
        rows = order[begin:end]
        own = times[rows]
        if len(own) > 3 and np.mean(np.diff(own) < 0) >= _SHUFFLED and len(np.unique(own)) == len(own):
            ordered[begin:end] = rows[np.argsort(own, kind="stable")]
            found += 1
    return ordered, found


def _parse(path: Path, sheet: Sheet, client: str | None, reading: Reading, model: ForModel) -> Table:
    header, notes = sheet.header, list(sheet.notes)
    roles = roles_of(path, header, client, reading.columns, model)
    first = list(islice(sheet.rows, _PEEK))
    peek = [row for _, row in first if len(row) == len(header)]
    number = numbers_of(path, reading, [row[i] for row in peek for i in roles.channels])
    if first and peek and first[0][1] is peek[0] and _are_units(peek, roles, number):
        units = ", ".join(peek[0][i].strip() or "-" for i in roles.channels)
        notes.append(f"line {first[0][0]} is passed over, it has units: {units}")
        del first[0], peek[0]
    if reading.columns.channels is None:
        roles = without_words(path, header, roles, peek, number, dateless=_is_dateless(reading))
    columns, channels = roles.at, roles.channels
    if "time" in columns and reading.time_format is None:
        _check_digits(path, header[columns["time"]], [row[columns["time"]].strip() for row in peek])
    values: list[list[float]] = []
    targets: list[list[float]] = []
    lines, clients, labels, recordings, times, dates = [], [], [], [], [], 0
    known: dict[str, Label | None] = {}
    owners: dict[str, str] = {}
    file = str(path)
    if not sheet.line and channels:
        _check_rates(path, [[row[i] for i in channels] for row in peek[:2]], number)
    for line, row in chain(first, sheet.rows):
        where = f"{file}, line {line}"
        if len(row) != len(header):
            escaped = any(cell.endswith("\\") for cell in row)
            hint = ', or say what is before separators that are none: data.escape = "\\"' if escaped else ""
            if not values and len(row) == len(header) + 1:
                hint = ": the first column, of row names, has no name; name it, or write without it (in R row.names = FALSE)"
            raise DataError(
                f"{where}: {len(row)} cells where the header has {len(header)}; repair the line{hint}"
            )
        at_once = number.row([row[i] for i in channels])
        values.append(at_once or [number.of(where, header[i], row[i]) for i in channels])
        targets.append([number.of(where, header[i], row[i]) for i in roles.targets])
        lines.append(line)
        owner = row[columns["client"]] if "client" in columns else str(client)
        if owner not in owners:
            name = (
                owner.strip() if model.owners else ""
            )  # on a device all rows are its own, whoever they say they are of
            owners[owner] = name or (client_of(owner, f"{where}: client") if "client" in columns else owner)
        clients.append(owners[owner])
        if "label" in columns:
            text = row[columns["label"]].strip()
            if text not in known:
                whole = text.replace(",", ".") if number.comma and is_comma(text) else text
                known[text] = _label(f"{where}: label", whole, reading)
            labels.append(known[text])
        else:
            labels.append(None)
        recordings.append(row[columns["recording"]].strip() if "recording" in columns else "")
        if "time" in columns:
            moment, date = _moment(where, header[columns["time"]], row[columns["time"]], number, reading)
            times.append(moment)
            dates += date
            if 0 < dates < len(times):
                raise DataError(
                    f"{where}: column {header[columns['time']]!r} is a {'date' if date else 'number'}, and a {'number' if date else 'date'} in "
                    "the lines before; make all the same"
                )
    if not values:
        raise DataError(f"{path} has no rows below its header; add samples")
    if not all(isinstance(label, int) for label in labels if label is not None):
        labels = [None if label is None else str(label) for label in labels]
    group = numbered(list(zip(clients, recordings, strict=True)))
    numbers, names = np.array(values, np.float64), [header[i] for i in channels]
    if number.values:
        numbers[np.isin(numbers, list(number.values))] = np.nan
    notes += roles.notes
    if reading.columns.channels is None:
        keep, more = judged(path, header, roles, numbers, group, numbered(labels))
        numbers, names = numbers[:, keep], list(compress(names, keep))
        notes += more
    if reading.missing is None:
        check_codes(str(path), names, numbers)
    with np.errstate(over="ignore"):  # becomes infinite
        array = numbers.astype(np.float32)
    if np.isinf(array).any():
        i, k = np.argwhere(np.isinf(array))[0].tolist()
        raise DataError(
            f"{path}, line {lines[i]}: column {names[k]!r} is {numbers[i, k]:g}, too large for single precision; repair or remove the line"
        )
    notes += coarse(names, numbers)
    seen = SeenFile(
        where=file,
        labels=_form(known, labels),
        rows=len(values),
        unlabelled=labels.count(None),
        columns=tuple((role, header[i]) for role, i in columns.items()),
        separator=sheet.separator,
        decimal="," if number.comma else ".",
        encoding=sheet.encoding,
        header=sheet.line,
    )
    return Table(
        channel_names=tuple(names),
        values=array,
        group=group,
        lines=lines,
        clients=clients,
        labels=labels,
        recordings=recordings,
        times=times if "time" in columns else None,
        dated=0 < dates == len(times),
        seen=seen,
        notes=tuple(notes),
        targets=np.array(targets, np.float64) if roles.targets else None,
    )


def _form(texts: Collection[str], labels: Sequence[Label | None]) -> str:
    """What labels are, in words, of their ``texts``."""
    if any(isinstance(label, str) for label in labels):
        return "names"
    return "whole numbers, written as floats" if any("." in text for text in texts) else "whole numbers"


def _are_units(rows: Sequence[Sequence[str]], roles: Roles, number: Numbers) -> bool:
    """Whether the first row has no number, but words where the second one has numbers, and a client and label of no other row."""
    first = [rows[0][i].strip() for i in roles.channels]
    if not any(first) or any(cell and number(cell) is not None for cell in first):
        return False
    whose = [role for role in ("client", "label") if role in roles.at]
    names = [rows[0][roles.at[role]].strip() for role in whose]
    if not any(names):
        return True
    second = [rows[1][i] for i in roles.channels] if len(rows) > 1 else []
    others = {row[roles.at[whose[-1]]].strip() for row in rows[1:]}
    return names[-1] not in others and any(
        cell and number(after) is not None for cell, after in zip(first, second, strict=False)
    )


def _check_rates(path: Path, rows: Sequence[Sequence[str]], number: Numbers) -> None:
    """Raise ``DataError`` for two first ``rows`` that have a time and a rate in every column, as wristbands of Empatica write them."""
    found = [{number(cell) for cell in row} for row in rows]
    if [len(values) for values in found] == [1, 1]:
        (start,), (rate,) = found
        if start is not None and rate is not None and start > 1e9 > 1e4 > rate > 0:
            raise DataError(
                f"{path}: its first two lines have one number each ({start:.10g} and {rate:g}), a beginning and a rate, it seems; remove both"
            )


def _is_dateless(reading: Reading) -> bool:
    """Whether times are certainly without dates."""
    return reading.time_format is not None and _DAY.search(reading.time_format) is None


def _check_digits(path: Path, column: str, texts: Sequence[str]) -> None:
    """Raise ``DataError`` for dates whose digits make numbers, which are no seconds."""
    found = {match.group(5) for text in texts if (match := _DIGITS.fullmatch(text))}
    if texts and found and all(map(_DIGITS.fullmatch, texts)):
        end = ".%f" if any(part and part[0] == "." for part in found) else "%f" if any(found) else ""
        raise DataError(
            f"{path}: column {column!r} has dates without a sign in them ({texts[0]!r}); say so: data.time_format = "
            f'"%Y%m%d%H%M%S{end}"'
        )


def _label(where: str, text: str, reading: Reading) -> Label | None:
    if is_unlabelled(text, reading.unlabelled, where):
        return None
    label = label_of(text)
    if label is None:
        raise DataError(f"{where} {text!r} is neither a whole number nor a name; make it one")
    return label


def _moment(where: str, column: str, cell: str, number: Numbers, reading: Reading) -> tuple[float, bool]:
    """A time as a number: seconds or any other unit, or a date and time by the setting, or ISO 8601; UTC without a zone.

    True with it where it is a date, and the number certainly seconds.
    """
    text = cell.strip()
    if reading.time_format is not None:
        try:
            found = datetime.strptime(text, reading.time_format)
        except ValueError:
            raise DataError(
                f"{where}: column {column!r} is {text!r}, not as data.time_format {reading.time_format!r} has it; "
                "repair the line or the setting"
            ) from None
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp(), True
    moment = number(text.replace(".", ",") if number.comma else text)
    date = moment is None or math.isnan(moment)
    if date:
        moment = iso_moment(text)
    if moment is None:
        hint = (
            ', or say how dates are written, such as data.time_format = "%d/%m/%Y %H:%M:%S.%f"'
            if text
            else ""
        )
        if is_comma(text):
            hint = ', or say that its comma is a decimal sign: data.decimal = ","'
        raise DataError(
            f"{where}: column {column!r} is {repr(text) if text else 'empty'}, not a finite number; repair or remove the line{hint}"
        )
    return moment, date
