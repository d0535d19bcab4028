"""What one device may ask of a gateway, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fedali.wire.messages import CHUNK


@dataclass(frozen=True)
class Limits:
    """Of a gateway; the defaults leave a well-behaved device an order of magnitude.

    Args:
        chunk: bytes of a download's or upload's chunk.
        heartbeat: seconds between a device's heartbeats while at work.
        calls_per_second: of one device, on average.
        burst: calls of one device at once.
        streams: calls of one device in flight.
        transfers: how often a device may move a round's bytes (bundle, state and update) within ``transfer_window``.
        transfer_window: seconds.
        stall: seconds after which a transfer that moved less than ``least_progress`` is cut.
        least_progress: bytes.
        handshake: seconds for TLS.
        idle: seconds until a connection is closed that has no call under way; a device at work calls every ``heartbeat``.
        transfers_at_once: uploads at one time, and downloads; others wait, but not for those of slow devices.
        fold_every: updates between two snapshots of a round's sum: as many are on the disk at once.
    """

    chunk: int = CHUNK
    heartbeat: float = 15.0
    calls_per_second: float = 20.0
    burst: int = 60
    streams: int = 8
    transfers: float = 8.0
    transfer_window: float = 120.0
    stall: float = 20.0
    least_progress: int = 16 << 10
    handshake: float = 15.0
    idle: float = 45.0
    transfers_at_once: int = 16
    fold_every: int = 16


class Bucket:
    """Lets ``rate`` a second through, and ``burst`` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._left, self._at = burst, time.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        """Whether there was enough; nothing is taken otherwise."""
        now = time.monotonic()
        self._left = min(self.burst, self._left + self.rate * (now - self._at))
        self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
