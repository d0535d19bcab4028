"""Vectors of one size in a file, so that what a federation remembers takes disk, not memory.

Plain reads and writes at an offset, not a memory map: the kernel keeps recent pages either way, but mapped ones
count as this process's memory, and a full disk would end it with a signal where a write says so.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import CheckpointError
from fedali.support.files import reporting

Vector = npt.NDArray[np.floating[Any]]


class RecordFile:
    """Float32 vectors [size], little-endian, one after another in a file; vector ``i`` starts at byte 4 * size * i.

    Args:
        size: of each vector, at least 1.
        path: of the file; made when it is not there.

    A gap that was never written takes no room on most file systems. ``write`` and ``flush`` raise ``FedaliError`` when
    the disk is full.
    """

    def __init__(self, size: int, path: Path) -> None:
        with reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._take(size, path, os.open(path, os.O_RDWR | os.O_CREAT, 0o644))

    @classmethod
    def temporary(cls, size: int, folder: Path | None = None) -> RecordFile:
        """A file without a name in ``folder``, or where temporary files are kept: gone with the object or process."""
        records, path = cls.__new__(cls), Path(folder or tempfile.gettempdir()) / "scratch"
        with reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".scratch.")
            Path(name).unlink()
        records._take(size, path, descriptor)
        return records

    def _take(self, size: int, path: Path, descriptor: int) -> None:
        self.size, self.path, self._descriptor = size, path, descriptor
        weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        """Whole vectors that the file has room for."""
        return os.fstat(self._descriptor).st_size // (4 * self.size)

    def write(self, number: int, *parts: Vector) -> bytes:
        """Write vector ``number``, given in parts [n], [m], ... that add up to ``size``; its bytes."""
        data = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)
        if len(data) != 4 * self.size:
            raise ValueError(f"{len(data) // 4} values for a record of {self.size}")
        with reporting(self.path):
            start, done = number * len(data), 0
            while done < len(data):  # a write may stop early, and says why only when asked to go on
                done += os.pwrite(self._descriptor, memoryview(data)[done:], start + done)
        return data

    def read(self, number: int) -> bytes:
        """Bytes of vector ``number``; ``CheckpointError`` when the file ends before it does."""
        length = 4 * self.size
        with reporting(self.path, "read"):
            data = os.pread(self._descriptor, length, number * length)
        if len(data) != length:
            raise CheckpointError(f"{self.path} ends before record {number}")
        return data

    def flush(self) -> None:
        """Return when everything written is on the disk itself."""
        with reporting(self.path):
            os.fsync(self._descriptor)


def as_vector(data: bytes) -> Vector:
    """The vector that was written, read-only."""
    return np.frombuffer(data, "<f4")
