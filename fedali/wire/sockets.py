"""Unix sockets in folders however deep: the system takes a path of about 100 bytes, people's folders are longer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fedali.errors import FedaliError
from fedali.support.files import reporting

_LONGEST = 100  # bytes of a Unix socket's path; Linux takes 107, macOS 103


class UnixAddress:
    """Where gRPC listens on ``socket``, or finds it.

    A path that is too long is reached through a handle of its folder (``/proc/self/fd``, Linux), which is held until ``close``: the socket
    lies where it says all the same. Raises ``FedaliError`` where that cannot be done, or the folder is not there.
    """

    def __init__(self, socket: Path) -> None:
        self._handle: int | None = None
        if len(os.fsencode(socket)) <= _LONGEST:
            self.address = f"unix:{socket}"
            return
        if not sys.platform.startswith("linux") or len(os.fsencode(socket.name)) > _LONGEST // 2:
            raise FedaliError(f"{socket} is too long for a Unix socket: choose one with --socket")
        with reporting(socket.parent, "reach"):
            self._handle = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.address = f"unix:/proc/self/fd/{self._handle}/{socket.name}"

    def close(self) -> None:
        """Let the folder go; what listens or asks has ended."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
