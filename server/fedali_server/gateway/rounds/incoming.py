"""Uploads of a round on the disk: what has arrived of each device's update, so that it can go on there."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fedali.support.files import flush_folder, reporting


class Incoming:
    """Files ``NUMBER-SHA256`` in ``folder``; one a device at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int, sha256: str) -> Path:
        """Where the update of a device is, or would be."""
        return self.folder / f"{number}-{sha256}"

    def held(self, number: int, sha256: str) -> int:
        """Bytes of an update that are here."""
        try:
            return self.path(number, sha256).stat().st_size
        except OSError:
            return 0

    def begin(self, number: int, sha256: str, offset: int) -> Upload:
        """Take an update from byte ``offset`` on; what else the device had begun is dropped. ``FedaliError`` from the disk."""
        with reporting(self.folder):
            for other in self.folder.glob(f"{number}-*"):
                if other.name != f"{number}-{sha256}":
                    other.unlink()
            path = self.path(number, sha256)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(handle, offset)
        return Upload(path, handle, offset)

    def read(self, number: int, sha256: str) -> bytes:
        """An update, once it is durable."""
        path = self.path(number, sha256)
        with reporting(path, "read"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                data = stream.read()
            flush_folder(self.folder)
        return data

    def drop(self, number: int, sha256: str) -> None:
        """Forget an update."""
        self.path(number, sha256).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Upload:
    """An update that is arriving."""

    path: Path
    handle: int
    received: int

    def write(self, data: bytes) -> None:
        """The next bytes."""
        with reporting(self.path):
            done = 0
            while done < len(data):
                done += os.pwrite(self.handle, data[done:], self.received + done)
        self.received += len(data)

    def close(self) -> None:
        """No more of it for now."""
        os.close(self.handle)
