"""The devices as the gateway sees them while it runs: who was heard of when, what each is at, what it may still ask."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedali.v1 import relay_pb2
from fedali.wire.kit import SiteDevice
from fedali_server.gateway.limits import Bucket, Limits
from fedali_server.gateway.refusal import too_much

_ONLINE = 3  # heartbeats without a word until a device counts as gone


class GatewayDevice:
    """One device; ``entry`` is what the site's kit says of it.

    ``sent`` and ``received`` are bytes in this round; ``seen_in_round`` says whether it was heard of in it, ``missed`` that it was not in the
    last one that waited for it, nor since.
    """

    def __init__(self, entry: SiteDevice, limits: Limits) -> None:
        self.entry, self._limits = entry, limits
        self.software = ""
        self.train_samples = self.test_samples = 0  # that it says it has
        self.doing = ""
        self.polls = 0  # which long poll is the newest: an older one ends
        self.uploads = 0  # which upload is the newest
        self.uploading = asyncio.Lock()
        self.spoiled = 0  # uploads of this round that were not what their digest said
        self.missed = False
        self._seen: float | None = None
        self._in_flight = 0
        self._calls = Bucket(limits.calls_per_second, limits.burst)
        self.begin_round(0)

    def begin_round(self, bytes_of_round: int) -> None:
        """Count anew; the device may move ``bytes_of_round`` a few times."""
        self.sent = self.received = self.spoiled = 0
        self.seen_in_round = self._in_flight > 0
        burst = self._limits.transfers * bytes_of_round
        self._bytes = Bucket(burst / self._limits.transfer_window, burst)

    @property
    def number(self) -> int:
        """Of the device in the federation."""
        return self.entry.number

    @contextmanager
    def call(self) -> Iterator[None]:
        """While one of its calls is answered. Raises ``Refusal`` when it has too many."""
        self._seen, self.seen_in_round, self.missed = time.monotonic(), True, False
        if not self._calls.take():
            raise too_much(
                f"more than {self._limits.calls_per_second:g} calls a second: wait before the next"
            )
        if self._in_flight >= self._limits.streams:
            raise too_much(f"more than {self._limits.streams} calls at once: end one before the next")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._seen = time.monotonic()

    def sending(self, size: int) -> None:
        """``size`` bytes go to the device. Raises ``Refusal`` when these are too many."""
        self._move(size)
        self.sent += size

    def receiving(self, size: int) -> None:
        """``size`` bytes came from the device. Raises ``Refusal`` when these are too many."""
        self._move(size)
        self.received += size

    def _move(self, size: int) -> None:
        if not self._bytes.take(size):
            raise too_much("this device moved many times what a round needs: wait a minute")

    @property
    def online(self) -> bool:
        """Whether it is there."""
        ago = math.inf if self._seen is None else time.monotonic() - self._seen
        return self._in_flight > 0 or ago < _ONLINE * self._limits.heartbeat

    def away_until(self, grace: float, begin: float) -> float:
        """Until when it is waited for, while it is away, in seconds of the monotonic clock: ``grace`` after it was last heard of, or after ``begin``.

        One that missed the round before is not waited for.
        """
        if self.missed:
            return begin
        return (
            max(begin, -math.inf if self._seen is None else self._seen + _ONLINE * self._limits.heartbeat)
            + grace
        )

    def status(self, *, revoked: bool) -> relay_pb2.DeviceStatus:
        """For a person."""
        ago = -1.0 if self._seen is None else time.monotonic() - self._seen
        online = self.online
        return relay_pb2.DeviceStatus(
            device=self.entry.name,
            number=self.entry.number,
            online=online,
            seen_seconds=ago,
            doing=self.doing if online else "",
            software=self.software,
            revoked=revoked,
            train_samples=self.train_samples,
            test_samples=self.test_samples,
        )
