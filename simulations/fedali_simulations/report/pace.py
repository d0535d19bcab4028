"""How fast rounds go by, and how long what is left will take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Rounds of several runs over time.

    Args:
        total: rounds of all runs.
        clock: seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._clock = total, clock
        self._rounds: dict[str, int] = {}  # by run
        self._found = 0  # rounds that were done before
        self._began = clock()

    @property
    def done(self) -> int:
        """Rounds that are complete, of all runs."""
        return sum(self._rounds.values())

    def note(self, run: str, round_: int) -> None:
        """``run`` has completed ``round_``; the first note of a run says what it goes on from."""
        if run not in self._rounds:
            self._found += round_
        self._rounds[run] = round_

    def left(self) -> float | None:
        """Seconds that what is left will take at the pace so far, None before the first round."""
        gone = self.done - self._found
        if gone <= 0:
            return None
        return (self._clock() - self._began) / gone * (self.total - self.done)


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> [duration(s) for s in (0.2, 42, 95, 600, 7260)]
    ['1 s', '42 s', '1 min 35 s', '10 min', '2 h 1 min']
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
