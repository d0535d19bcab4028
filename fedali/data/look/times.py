"""What times mean: seconds where they are dates; what a number counts is a guess, and is called one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedali.data.look.files import Clock

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Of the units that a time may count."""

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

STEADY = 0.05
"""Recordings whose rates differ by less have one rate."""

_FAST, _SLOW = 0.002, 0.2  # seconds between rows, that a guess goes by

_NAMES = (
    ("ns", r"nano(s|secs?|seconds?)?|ns"),
    ("us", r"micro(s|secs?|seconds?)?|us|µs|μs|usecs?"),
    ("ms", r"milli(s|secs?|seconds?)?|ms|msecs?"),
    ("s", r"s|secs?|seconds?|unix"),
)
_SINCE_1970 = (
    ("ns", 1e17, 1e19),
    ("us", 1e14, 1e16),
    ("ms", 1e11, 1e13),
    ("s", 1e8, 1e10),
)  # 1973 to 2286


@dataclass(frozen=True)
class Times:
    """Times of all files of a data set; intervals and rates are in seconds where ``unit`` is known or guessed, else in what the files count.

    Args:
        columns: names of the columns, one for all files that agree.
        unit: what a number counts: s, ms, us or ns; "" where there is nothing to tell by.
        certain: whether the unit is certain, since times are dates; else it is a guess.
        why: what the guess is by, in words; "" where nothing is guessed.
        rate: rows a second, on average over stretches without a pause; None without a unit.
        slowest: the rate of the slowest recording, None likewise, and ``fastest`` that of the fastest.
        interval: the median interval, 5 % of all are shorter than ``low`` and 5 % longer than ``high``; of several files the
            median of medians, the lowest and the highest.
        equal: rows with the time of the row before, as in packets.
        pauses: how many no window crosses, and the ``longest_pause``, 0 without.
        holes: shorter ones that windows cross, from 1.5 median intervals on, and the ``longest_hole``.
    """

    columns: tuple[str, ...]
    unit: str
    certain: bool
    why: str
    rate: float | None
    slowest: float | None
    fastest: float | None
    interval: float
    low: float
    high: float
    equal: int
    pauses: int
    longest_pause: float
    holes: int
    longest_hole: float

    @property
    def steady(self) -> bool:
        """Whether there is one rate for all recordings."""
        return (
            self.slowest is not None
            and self.fastest is not None
            and self.fastest <= (1 + STEADY) * self.slowest
        )

    @property
    def certain_rate(self) -> float | None:
        """The rate to four digits, where times are dates and all recordings have it; else None."""
        return float(f"{self.rate:.4g}") if self.rate is not None and self.certain and self.steady else None


def times_of(clocks: Sequence[Clock]) -> Times | None:
    """What the clocks of all files say together; None without any."""
    if not clocks:
        return None
    certain = all(clock.dates for clock in clocks)
    guesses = {unit_of(clock) for clock in clocks}
    unit, why = guesses.pop() if len(guesses) == 1 else ("", "files differ in it")
    scale = SECONDS.get(unit, 1.0)
    known = bool(unit)
    return Times(
        columns=tuple(dict.fromkeys(clock.column for clock in clocks)),
        unit=unit,
        certain=certain,
        why="" if certain else why,
        rate=sum(c.rows for c in clocks) / sum(c.span for c in clocks) / scale if known else None,
        slowest=min(c.slowest for c in clocks) / scale if known else None,
        fastest=max(c.fastest for c in clocks) / scale if known else None,
        interval=sorted(c.interval for c in clocks)[len(clocks) // 2] * scale,
        low=min(c.low for c in clocks) * scale,
        high=max(c.high for c in clocks) * scale,
        equal=sum(c.equal for c in clocks),
        pauses=sum(c.pauses for c in clocks),
        longest_pause=max(c.longest_pause for c in clocks) * scale,
        holes=sum(c.holes for c in clocks),
        longest_hole=max(c.longest_hole for c in clocks) * scale,
    )


def unit_of(clock: Clock) -> tuple[str, str]:
    """What the times count, and by what that is told; "" and why not, where two signs disagree or there is none.

    >>> from dataclasses import replace
    >>> clock = Clock("time", False, 0.0, 9, 0.18, 50, 50, 0.02, 0.02, 0.02, False, 0, 0, 0.0, 0, 0.0)
    >>> unit_of(clock), unit_of(replace(clock, column="t_ms", interval=20.0)), unit_of(replace(clock, first=1.7e18))
    (('s', 'by the intervals'), ('ms', 'by the name'), ('ns', 'by their size, as counted since 1970'))
    >>> unit_of(replace(clock, interval=1.0, low=1.0, high=1.0, whole=True))
    ('', 'they may count rows')
    """
    if clock.dates:
        return "s", ""
    words = re.split(r"[^a-zµμ]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", clock.column).lower())
    by_name = next((unit for unit, words_ in _NAMES for word in words if re.fullmatch(words_, word)), "")
    by_size = next((unit for unit, low, high in _SINCE_1970 if low <= clock.first < high), "")
    if by_size:
        agrees = by_name in ("", by_size)
        return (
            (by_size, "by their size, as counted since 1970")
            if agrees
            else ("", "their name and size disagree")
        )
    if by_name:
        return by_name, "by the name"
    if clock.whole and clock.low == clock.high == 1:
        return "", "they may count rows"
    step = clock.interval
    unit = "s" if step < 1 else next((u for u, s in SECONDS.items() if _SLOW >= step * s >= _FAST), "")
    return (unit, "by the intervals") if unit else ("", "their intervals say nothing of it")
