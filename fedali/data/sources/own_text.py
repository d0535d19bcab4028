"""The text of a CSV: its encoding, its separator, and where its header is."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple

from fedali.data.sources.reading import SEPARATORS, Reading
from fedali.data.sources.unpacking import unpacked
from fedali.errors import DataError

_QUOTES = ('"', "'")
_LOOK = 64  # lines in which a header is looked for
_MARKS = (  # longer ones first: one begins with another
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_EXCEL = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Sheet:
    """A header and the line it is in, the rows below it with their line numbers, and notes on what was passed over.

    ``separator`` and ``encoding`` are those it was read with.
    """

    header: list[str]
    line: int
    rows: Iterator[tuple[int, list[str]]]
    separator: str
    encoding: str
    notes: tuple[str, ...]


@contextmanager
def open_sheet(path: Path, reading: Reading, is_header: Callable[[Sequence[str]], bool]) -> Iterator[Sheet]:
    """A CSV whose header is the first line that ``is_header``, split as that line can be; else the first of most lines that split alike.

    Whatever is wrong with the file becomes a ``DataError``.
    """
    try:
        with unpacked(path) as stream, _text(path, stream, reading) as text:
            yield _sheet(path, text, reading, is_header)
    except UnicodeError as error:
        if reading.encoding is not None:
            raise DataError(
                f"{path} is not {reading.encoding} text; set data.encoding to what it is"
            ) from error
        raise DataError(
            f'{path} is not UTF-8 text; save it as CSV in UTF-8, or say what it is: data.encoding = "cp1252" (or "latin-1")'
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is no CSV ({error}); save it as comma-separated text") from error
    except LookupError as error:
        raise DataError(
            f"data.encoding is {reading.encoding!r}, which Python does not know; utf-8, utf-16, latin-1 and cp1252 are some"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _text(path: Path, stream: IO[bytes], reading: Reading) -> io.TextIOWrapper:
    start = stream.peek(4)  # type: ignore[attr-defined]
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked is None and reading.encoding is None and b"\0" in start[:4]:
        raise DataError(
            f'{path} holds zero bytes, and is no UTF-8 text; say what it is: data.encoding = "utf-16-le"'
        )
    return io.TextIOWrapper(stream, encoding=marked or reading.encoding or "utf-8", newline="")


def _sheet(
    path: Path, text: io.TextIOWrapper, reading: Reading, is_header: Callable[[Sequence[str]], bool]
) -> Sheet:
    whole = _without_zeros(path, text)
    first = list(islice(whole, _LOOK))
    if reading.header is not None:
        return _headless(text.encoding, whole, first, reading, _marks(reading))
    excel = _EXCEL.fullmatch(first[0]) if first else None
    choices, begin = _marks(reading, excel.group(1) if excel else None), 1 if excel else 0
    found = next(
        (
            (i, marks)
            for i in range(begin, len(first))
            for marks in choices
            if is_header(_cells(first[i].lstrip("# ") if first[i].startswith("#") else first[i], marks))
        ),
        None,
    )
    if found is None:
        _check_marks(path, first[begin:], reading, is_header)
        found = _likeliest(first, begin, choices)
    at, marks = found
    passed = sum(bool(line.strip()) and not line.startswith("#") for line in first[begin:at])
    notes = [f"{passed} lines above the header are passed over"] if passed else []
    if at < len(first) and first[at].startswith("#"):
        first[at] = first[at].lstrip("# ")
    reader = _reader(chain(first[at:], whole), marks)
    header = [cell.strip() for cell in next(reader, [])]
    return Sheet(header, at + 1, _rows(reader, at, header), marks.separator, text.encoding, tuple(notes))


def _without_zeros(path: Path, text: Iterable[str]) -> Iterator[str]:
    """The lines of a text. Raises ``DataError`` for one with a zero byte, which Python's versions read in different ways."""
    for line, content in enumerate(text, 1):
        if "\0" in content:
            raise DataError(
                f"{path}, line {line} holds zero bytes, as files do that were cut off while they were written; remove them, or say what "
                'text it is: data.encoding = "utf-16-le"'
            )
        yield content


def _check_marks(
    path: Path, lines: Sequence[str], reading: Reading, is_header: Callable[[Sequence[str]], bool]
) -> None:
    """Raise ``DataError`` for a header that other marks than the usual ones would make one: it names them."""
    for line in lines:
        odd = sorted({letter for letter in line.strip() if not (letter.isalnum() or letter in "_# ")})
        for separator in [reading.separator] if reading.separator else [*SEPARATORS, " ", *odd]:
            for quote in [reading.quote] if reading.quote else [*_QUOTES, *odd[:9]]:
                if separator not in (quote, *_QUOTES) and is_header(
                    _cells(line, _Marks(separator, quote, reading.escape))
                ):
                    marks = {"separator": separator} if separator not in SEPARATORS else {}
                    marks |= {"quote": quote} if quote not in _QUOTES else {}
                    said = " and ".join(f"data.{name} = {json.dumps(mark)}" for name, mark in marks.items())
                    raise DataError(f"{path}: columns are written in another way than usual; say so: {said}")


def _likeliest(lines: Sequence[str], begin: int, choices: Sequence[_Marks]) -> tuple[int, _Marks]:
    """Where the header is, and its marks, when no line names what it has to: the first of the most lines that split alike."""
    plain = [i for i in range(begin, len(lines)) if lines[i].strip() and not lines[i].startswith("#")]
    best = (0, 0), plain[0] if plain else begin, choices[0]
    for marks in choices:
        cells = [len(_cells(lines[i], marks)) for i in plain]
        for count in sorted(set(cells) - {1}):
            best = max(
                best,
                ((cells.count(count), count), plain[cells.index(count)], marks),
                key=lambda one: one[0],
            )
    return best[1:]


def _headless(
    encoding: str, rest: Iterator[str], first: Sequence[str], reading: Reading, choices: Sequence[_Marks]
) -> Sheet:
    """A CSV whose columns are named by a setting; a first line with just these names is its header all the same."""
    header = list(reading.header or ())
    plain = [line for line in first if line.strip() and not line.startswith("#")][:1]
    fits = [marks for marks in choices if plain and len(_cells(plain[0], marks)) == len(header)]
    marks = min(fits, key=lambda marks: _quoted(_cells(plain[0], marks))) if fits else choices[0]
    rows = _rows(_reader(chain(first, rest), marks), 0, header)
    begun = list(islice(rows, 1))
    if begun and [cell.strip() for cell in begun[0][1]] == header:
        begun = []
    return Sheet(header, 0, chain(begun, rows), marks.separator, encoding, ())


def _quoted(cells: Sequence[str]) -> int:
    """How many cells have quotes around them."""
    return sum(len(cell) > 1 and cell[0] == cell[-1] and cell[0] in _QUOTES for cell in cells)


def _rows(reader: Iterator[list[str]], before: int, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything, without comments: a line with # before it that has not as many cells as the header.

    A separator at the end of rows alone, or of the header alone, is none.
    """
    cells = len(header)
    for row in reader:
        if len(row) != cells:
            if not row or row[0].startswith("#"):
                continue
            if len(row) == cells + 1 and not row[-1].strip():
                del row[-1]
            elif len(row) == cells - 1 and not header[-1]:
                row.append("")
        if row[0] or any(cell.strip() for cell in row):
            yield before + reader.line_num, row  # type: ignore[attr-defined]


class _Marks(NamedTuple):
    """What is between cells, around them, and before what is neither."""

    separator: str
    quote: str
    escape: str | None


def _marks(reading: Reading, excel: str | None = None) -> list[_Marks]:
    """Those that may be a file's, the likelier first; ``excel`` is the separator that the file itself names."""
    separators = [reading.separator] if reading.separator else [excel] if excel else SEPARATORS
    quotes = [reading.quote] if reading.quote else _QUOTES
    return [_Marks(separator, quote, reading.escape) for separator in separators for quote in quotes]


def _reader(lines: Iterable[str], marks: _Marks) -> Iterator[list[str]]:
    separator, quote, escape = marks
    spaces = separator == " "
    return csv.reader(lines, delimiter=separator, quotechar=quote, escapechar=escape, skipinitialspace=spaces)


def _cells(line: str, marks: _Marks) -> list[str]:
    try:
        return [cell.strip() for cell in next(_reader([line], marks), [])]
    except csv.Error:
        return []
