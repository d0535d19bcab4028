"""A file of JSON lines: what was committed to it is there after a crash, and a line torn by one is not."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from fedali.errors import CheckpointError
from fedali.support.files import flush_folder, reporting

Record = Mapping[str, Any]


class Journal:
    """Appends records; ``records`` are those that were there when it was opened.

    Raises ``FedaliError`` when the file cannot be written, ``CheckpointError`` when it is damaged elsewhere than at its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reporting(path):
            existed = path.exists()
            data = path.read_bytes() if existed else b""
            self.records, sound = _read(data, path)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size, self._writing = sound, Lock()
            if sound < len(data):
                os.ftruncate(self._handle, sound)
                os.fsync(self._handle)
        if not existed:
            flush_folder(path.parent)

    def note(self, record: Record) -> None:
        """Append a record, from any thread, that survives the process, and perhaps not a power cut."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with reporting(self.path), self._writing:
            try:
                written = os.write(self._handle, line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, "a line was written in part")
            except OSError:
                os.ftruncate(self._handle, self._size)
                raise
            self._size += written

    def commit(self, record: Record) -> None:
        """Append a record and return when it is on the disk."""
        self.note(record)
        with reporting(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _read(data: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many bytes of ``data`` they are."""
    records: list[dict[str, Any]] = []
    sound = 0
    lines = data.split(b"\n")
    for index, line in enumerate(lines[:-1]):  # behind the last newline there is nothing, or a torn line
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
        except ValueError:
            if any(rest.strip(b"\0") for rest in lines[index + 1 :]):
                raise CheckpointError(f"{path} is damaged in line {index + 1}") from None
            break
        records.append(record)
        sound += len(line) + 1
    return records, sound
