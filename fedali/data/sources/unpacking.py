"""Files that are packed, by their first bytes; and what is no text at all."""

from __future__ import annotations

import gzip
import importlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from fedali.errors import DataError

PACKED = (".gz", ".bz2", ".xz", ".zip")
"""Endings of what is unpacked."""

_ZIP, _XZ = b"PK\x03\x04", b"\xfd7zXZ"
_OTHERS = (
    (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it first"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of Excel: save it as CSV"),
    (b"PAR1", "Parquet: save it as CSV, or as .npz"),
    (b"\x89HDF", "HDF5: save it as CSV, or as .npz"),
    (b"\x93NUMPY", "an array of numpy: give it the ending .npy, or save a .npz with x, y and client"),
)
_SHEETS = ("[Content_Types].xml", "mimetype")  # of .xlsx and .ods, which are zips too
_LITTER = "__MACOSX/"


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes as they were before they were packed, as a stream that has ``peek``.

    Raises ``DataError`` for what cannot be unpacked, and for known kinds of files that are no text.
    """
    with path.open("rb") as raw:
        start = raw.peek(512)
        for magic, what in _OTHERS:
            if start.startswith(magic):
                raise DataError(f"{path} is {what}")
        if start[257:262] == b"ustar":
            raise DataError(f"{path} is a tar archive: unpack it first")
        broken: tuple[type[Exception], ...] = (EOFError, zlib.error, *_errors_of(start))
        try:
            with _opened(path, raw, start) as stream:
                yield stream
        except broken as error:
            raise DataError(f"{path} ends too early to be unpacked; fetch or save it again") from error
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path} cannot be unpacked ({error}); fetch or save it again") from error


def _opened(path: Path, raw: IO[bytes], start: bytes) -> IO[bytes]:
    if start.startswith(_ZIP):
        return _member(path, raw)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], _module(path, "bz2").BZ2File(raw))
    if start.startswith(_XZ):
        return cast(IO[bytes], _module(path, "lzma").LZMAFile(raw))
    return raw


def _errors_of(start: bytes) -> tuple[type[Exception], ...]:
    return (importlib.import_module("lzma").LZMAError,) if start.startswith(_XZ) else ()


def _member(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The one file in a zip."""
    archive = zipfile.ZipFile(raw)
    entries = [
        entry for entry in archive.infolist() if not entry.is_dir() and not entry.filename.startswith(_LITTER)
    ]
    if any(entry.filename in _SHEETS for entry in entries):
        raise DataError(f"{path} is a spreadsheet: save it as CSV")
    if len(entries) != 1:
        raise DataError(f"{path} holds {len(entries)} files; unpack it into a folder, one file per client")
    if entries[0].flag_bits & 1:
        raise DataError(f"{path} is encrypted; unpack it first")
    return archive.open(entries[0])


def _module(path: Path, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # small systems leave it out
        raise DataError(f"{path}: this Python cannot unpack {name}; unpack it first") from None
