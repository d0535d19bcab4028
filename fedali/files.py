"""Writing files so that a crash at any moment leaves the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedali.errors import FedaliError


@contextlib.contextmanager
def reporting(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` into a ``FedaliError`` of one line that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise FedaliError(f"cannot {doing} {path}: {reason}") from error


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed over ``path``.

    Raises ``FedaliError`` when the disk is full or the folder cannot be written; ``path`` is then untouched.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)  # noqa: PTH101  mkstemp's 0600 would hide results from colleagues
            temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def flush_folder(path: Path) -> None:
    """Return when the names in the folder ``path`` are on the disk: what was renamed stays so after a power cut."""
    with reporting(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
