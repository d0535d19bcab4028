"""Writing files so that a crash at any moment leaves the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedali.errors import FedaliError, SettingsError


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


@contextlib.contextmanager
def running_alone(folder: Path) -> Iterator[None]:
    """While this lasts no other process runs in ``folder``, which is made; the lock goes with the process, however it ends.

    Raises ``SettingsError`` with the number of the process that does.
    """
    path = folder / "running.lock"
    with reporting(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    who = os.read(handle, 32).decode("ascii", "replace").strip() or "another"
                    raise SettingsError(
                        f"{path.parent} is in use by process {who}: wait until it ends, or choose another --out"
                    ) from None
            if os.fstat(handle).st_ino == path.stat().st_ino:
                os.truncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
                return handle
        except FileNotFoundError:  # whoever had it ended just now, and took the file away
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
