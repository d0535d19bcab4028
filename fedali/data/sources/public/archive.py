"""A data set's files wherever they are: in a folder, a zip or tar, and in zips within those; nothing is left unpacked."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from fedali.errors import DataError

Place = tuple[str, ...]
"""Names of archives within archives, and at last of a file."""

_Archive = zipfile.ZipFile | tarfile.TarFile
_PLAIN = (".txt", ".csv", ".dat")
_IN_MEMORY = 1 << 26  # bytes of an inner zip; a larger one goes through a file without a name
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


class Tree:
    """The files below ``root``; ``get`` is the end of an error: where to get them.

    Raises ``DataError`` that names the file for all that is missing or broken.
    """

    def __init__(self, root: Path, get: str) -> None:
        self.root, self.get = root, get
        self._only: str | None = None
        self._opened: list[tuple[Place, _Archive, IO[bytes] | None]] = []
        if not root.exists():
            raise DataError(f"{root} does not exist; {get}")
        if root.suffix in _PLAIN and root.is_file():
            self.root, self._only = root.parent, root.name
        elif root.is_file():
            with self._guarded(()):
                self._opened.append(((), _archive(root), None))

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._opened:
            self._close()

    def find(self, pattern: str, what: str, inside: str | None = None) -> dict[tuple[str, ...], Place]:
        """Files whose path matches ``pattern``, by its groups, in their natural order.

        Without ``inside``, zips are looked into while there is none; with it, always into those whose path matches. A file that
        lies in a zip and unpacked beside it is taken unpacked. Raises ``DataError`` when there is none, calling them ``what``.
        """
        found: dict[tuple[str, ...], Place] = {}
        level: list[Place] = [()]
        while level and (inside is not None or not found):
            here: dict[tuple[str, ...], Place] = {}
            deeper: list[Place] = []
            for place in level:
                for name in self._names(place):
                    match = re.search(pattern, "/".join((*place, name)))
                    if match is not None:
                        key = tuple(group or "" for group in match.groups())
                        if key in here:
                            raise DataError(
                                f"{self.where(here[key])} and {self.where((*place, name))} are the same; keep one"
                            )
                        here[key] = (*place, name)
                    elif name.lower().endswith(".zip") and (inside is None or re.search(inside, name)):
                        deeper.append((*place, name))
            found = {**here, **found}
            level = deeper
        if not found:
            raise DataError(f"{self.root} holds no {what}; {self.get}")
        return {key: found[key] for key in sorted(found, key=_natural)}

    def where(self, place: Place) -> str:
        """The path of a file for people."""
        return "/".join([str(self.root), *place])

    @contextmanager
    def open(self, place: Place) -> Iterator[IO[bytes]]:
        """The bytes of a file."""
        with self._guarded(place):
            *parents, name = place
            if not parents and self.root.is_dir():
                with (self.root / name).open("rb") as stream:
                    yield stream
                return
            archive = self._inside(tuple(parents))
            inner = archive.open(name) if isinstance(archive, zipfile.ZipFile) else archive.extractfile(name)
            if inner is None:
                raise DataError(f"{self.where(place)} is no file; {self.get}")
            with io.BufferedReader(cast("io.RawIOBase", inner), 1 << 20) as stream:  # whose lines come fast
                yield stream

    @contextmanager
    def _guarded(self, place: Place) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise DataError(f"{self.where(place)} is broken ({error}); {self.get}") from error
        except OSError as error:
            raise DataError(f"cannot read {self.where(place)}: {error.strerror or error}") from error

    def _names(self, place: Place) -> list[str]:
        if self._only is not None:
            names = [] if place else [self._only]
        elif not place and self.root.is_dir():
            names = [
                (Path(folder) / file).relative_to(self.root).as_posix()
                for folder, _, files in os.walk(self.root)
                for file in files
            ]
        else:
            archive = self._inside(place)
            if isinstance(archive, zipfile.ZipFile):
                names = [member.filename for member in archive.infolist() if not member.is_dir()]
            else:
                names = [member.name for member in archive.getmembers() if member.isfile()]
        return sorted(name for name in names if not _litter(name))

    def _inside(self, place: Place) -> _Archive:
        """The archive at ``place``; those that it is in stay open, others are closed."""
        while self._opened and place[: len(self._opened[-1][0])] != self._opened[-1][0]:
            self._close()
        while not self._opened or self._opened[-1][0] != place:
            depth = len(self._opened[-1][0]) if self._opened else 0
            inner = place[: depth + 1]
            with self._guarded(inner):
                if not self._opened:
                    self._opened.append((inner, zipfile.ZipFile(self.root / inner[0]), None))
                else:
                    copy = _seekable(self._opened[-1][1], inner[-1])
                    self._opened.append((inner, zipfile.ZipFile(copy), copy))
        return self._opened[-1][1]

    def _close(self) -> None:
        _, archive, copy = self._opened.pop()
        archive.close()
        if copy is not None:
            copy.close()


def _archive(path: Path) -> _Archive:
    if not zipfile.is_zipfile(path) and tarfile.is_tarfile(path):
        return tarfile.open(path)
    return zipfile.ZipFile(path)


def _seekable(archive: _Archive, name: str) -> IO[bytes]:
    """A copy of an inner archive: looking for its members' beginnings in a compressed stream would read it again each time."""
    if isinstance(archive, tarfile.TarFile):
        raise zipfile.BadZipFile("a zip in a tar")
    size = archive.getinfo(name).file_size
    copy: IO[bytes] = io.BytesIO() if size <= _IN_MEMORY else tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with archive.open(name) as stream:
            while block := stream.read(1 << 20):
                copy.write(block)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _litter(name: str) -> bool:
    """Whether a file is an operating system's own.

    >>> _litter("__MACOSX/raw/._data.txt"), _litter("raw/.DS_Store"), _litter("raw/data.txt")
    (True, True, False)
    """
    return "__MACOSX" in name or name.rpartition("/")[2].startswith(".")


def _natural(key: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """Order in which numbers are numbers.

    >>> sorted([("10",), ("9",), ("a",)], key=_natural)
    [('9',), ('10',), ('a',)]
    """
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in key]
