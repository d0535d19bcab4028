"""The text of a CSV: its encoding, its separator, and where its header is."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from fedali.data.sources.reading import SEPARATORS, Reading
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
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with _text(path, gzip.GzipFile(fileobj=raw) if zipped else raw, reading) as text:
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
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} ends too early to be unpacked; fetch or save it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _text(path: Path, stream: gzip.GzipFile | io.BufferedReader, reading: Reading) -> io.TextIOWrapper:
    start = stream.peek(4)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked is None and reading.encoding is None and b"\0" in start[:4]:
        raise DataError(
            f'{path} holds zero bytes, and is no UTF-8 text; say what it is: data.encoding = "utf-16-le"'
        )
    return io.TextIOWrapper(stream, encoding=marked or reading.encoding or "utf-8", newline="")


def _sheet(
    path: Path, text: io.TextIOWrapper, reading: Reading, is_header: Callable[[Sequence[str]], bool]
) -> Sheet:
    lines = iter(text)
    first = list(islice(lines, _LOOK))
    excel = _EXCEL.fullmatch(first[0]) if first else None
    separators = [reading.separator] if reading.separator else [excel.group(1)] if excel else list(SEPARATORS)
    begin = 1 if excel else 0
    found = next(
        (
            (i, separator, quote)
            for i in range(begin, len(first))
            for separator in separators
            for quote in _QUOTES
            if is_header(
                _cells(first[i].lstrip("# ") if first[i].startswith("#") else first[i], separator, quote)
            )
        ),
        None,
    )
    if found is None:
        found = *_likeliest(first, begin, separators), _QUOTES[0]
    at, separator, quote = found
    passed = sum(bool(line.strip()) and not line.startswith("#") for line in first[begin:at])
    notes = [f"{passed} lines above the header are passed over"] if passed else []
    if at < len(first) and first[at].startswith("#"):
        first[at] = first[at].lstrip("# ")
    reader = _reader(chain(first[at:], lines), separator, quote)
    header = [cell.strip() for cell in next(reader, [])]
    return Sheet(header, at + 1, _rows(reader, at, header), separator, text.encoding, tuple(notes))


def _likeliest(lines: Sequence[str], begin: int, separators: Sequence[str]) -> tuple[int, str]:
    """Where the header is, and the separator, when no line names what it has to: the first of the most lines that split alike."""
    plain = [i for i in range(begin, len(lines)) if lines[i].strip() and not lines[i].startswith("#")]
    best = (0, 0), begin, separators[0]
    for separator in separators:
        cells = [len(_cells(lines[i], separator)) for i in plain]
        for count in sorted(set(cells) - {1}):
            best = max(
                best,
                ((cells.count(count), count), plain[cells.index(count)], separator),
                key=lambda one: one[0],
            )
    return (best[1], best[2]) if best[0][0] else (plain[0] if plain else begin, separators[0])


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


def _reader(lines: Iterable[str], separator: str, quote: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=separator == " ")


def _cells(line: str, separator: str, quote: str = _QUOTES[0]) -> list[str]:
    try:
        return [cell.strip() for cell in next(_reader([line], separator, quote), [])]
    except csv.Error:
        return []
