"""Files of a kit: written whole or not at all, and private ones never readable by others."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fedali.support.files import reporting


def make_folder(path: Path) -> None:
    """A folder that its owner alone can enter, if there is none yet."""
    with reporting(path, "make"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, data: bytes, *, private: bool = False) -> bool:
    """Write a file atomically unless it holds ``data`` already; whether it was written.

    A private file has mode 0600 and is on the disk on return; another can be made again, and is left to the system.
    """
    mode = 0o600 if private else 0o644
    with reporting(path):
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            path.chmod(mode)
            return False
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                if private:
                    os.fsync(stream.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return True
