"""Turns at moving data: however many devices move some, few transfers take memory and disk at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

_PATIENCE = 1.0  # seconds that a device may keep a turn waiting


class Turn:
    """The right to move data, until it ends or is given back because the device is slow."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns, self._held = turns, True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the device is waited for: one that is slow goes on without holding up others."""
        timer = asyncio.get_running_loop().call_later(_PATIENCE, self.give_back)
        try:
            yield
        finally:
            timer.cancel()

    def give_back(self) -> None:
        """Let the next one in."""
        if self._held:
            self._held = False
            self._turns.release()


class TransferQueue:
    """Lets ``at_once`` transfers through at a time, in the order of their coming, besides those of slow devices."""

    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a turn, and hold it during a transfer."""
        await self._turns.acquire()
        turn = Turn(self._turns)
        try:
            yield turn
        finally:
            turn.give_back()
