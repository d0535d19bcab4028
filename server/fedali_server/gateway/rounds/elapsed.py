"""How long ago something began, across restarts of the process, without asking what time it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Names the time since the machine was started; empty where the system does not tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Stopwatch:
    """Seconds since ``start`` of the monotonic clock, which goes on while the process is dead."""

    start: float
    boot: str

    @classmethod
    def begin(cls) -> Stopwatch:
        """One that starts now."""
        return cls(time.monotonic(), boot_id())

    @classmethod
    def resume(cls, start: float, boot: str, at_least: float) -> Stopwatch:
        """One that was begun earlier; after a restart of the machine it goes on from ``at_least`` seconds."""
        now = time.monotonic()
        if boot and boot == boot_id() and now - start >= at_least:
            return cls(start, boot)
        return cls(now - at_least, boot_id())

    def elapsed(self) -> float:
        """Seconds."""
        return time.monotonic() - self.start
