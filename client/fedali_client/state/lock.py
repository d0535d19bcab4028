"""One process at a time may change a state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fedali.errors import FedaliError
from fedali.support.files import reporting


class Lock:
    """Held from its making to ``release``, or to the end of the process however it ends.

    Raises ``FedaliError`` naming the process that holds it.
    """

    def __init__(self, path: Path) -> None:
        with reporting(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._handle, 20, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise FedaliError(
                f"{path.parent} is in use by process {holder or 'unknown'}; wait for it, stop it, or give another folder "
                "for the state"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others in."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
