"""Turns at moving data: however many devices move some, few chunks are in memory at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PATIENCE = 1.0  # seconds after which a slow device no longer holds up others


class Lane:
    """Lets ``at_once`` through at a time, in the order of their coming; who takes long does not count any more."""

    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn while moving one chunk."""
        await self._turns.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._turns.release()

        timer = asyncio.get_running_loop().call_later(_PATIENCE, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
