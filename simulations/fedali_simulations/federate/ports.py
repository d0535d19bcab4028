"""Ports of the loopback interface for a federation on one machine."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

_LOWEST, _ATTEMPTS = 10240, 100
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listened on a moment ago.

    They are below those that the system gives to outgoing connections, of which any could take one before its server starts.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            _bind(each)
        return [each.getsockname()[1] for each in sockets]


def _bind(free: socket.socket) -> None:
    end = 32768
    with suppress(OSError, ValueError):
        end = int(_RANGE.read_text("ascii").split()[0])
    numbers = random.SystemRandom()  # no two processes draw alike
    for _ in range(_ATTEMPTS if end > _LOWEST else 0):
        with suppress(OSError):
            free.bind(("127.0.0.1", numbers.randrange(_LOWEST, end)))
            return
    free.bind(("127.0.0.1", 0))
