"""A plain line that shows how far a fit is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from fedali_client.compute.trainer import FitProgress

_WIDTH = 24
_PAUSE = 0.1  # seconds between two drawings


class ProgressLine:
    """One line of a terminal, drawn again and again; of anything but a terminal nothing is written."""

    def __init__(self, stream: TextIO = sys.stderr, seen: str = "accuracy") -> None:
        self._stream, self._shown, self._seen = stream, stream.isatty(), seen
        self._began, self._drawn, self._first = time.monotonic(), 0.0, 0
        self.last: FitProgress | None = None

    def __call__(self, now: FitProgress) -> None:
        """Show where the fit is."""
        if self.last is None:
            self._first = now.step - 1
        self.last = now
        moment = time.monotonic()
        if not self._shown or (moment - self._drawn < _PAUSE and now.step < now.total):
            return
        self._drawn = moment
        done = _WIDTH * now.step // now.total
        each = (moment - self._began) / (now.step - self._first)
        left = _duration(each * (now.total - now.step))
        self._stream.write(
            f"\r[{'#' * done}{'.' * (_WIDTH - done)}] epoch {now.epoch}/{now.epochs}  loss {now.loss:.3f}  "
            f"{self._seen} {now.accuracy:.3f}  {left} left\033[K"
        )
        self._stream.flush()

    def close(self) -> None:
        """Go to the next line."""
        if self._shown and self.last is not None:
            self._stream.write("\n")
            self._stream.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
