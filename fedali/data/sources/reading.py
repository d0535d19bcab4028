"""How a user's own files are read, where the files alone do not say it."""

from __future__ import annotations

from dataclasses import dataclass, field

ROLES = ("client", "label", "recording", "time")
"""Columns of a CSV that are no channels, by what they are for."""

GAP = 10.0
"""Median intervals of a recording: no window crosses a longer pause. Jitter and a few lost samples stay below it."""

SEPARATORS = (",", ";", "\t", "|")
"""Of a CSV's columns, those that are looked for."""


@dataclass(frozen=True)
class Columns:
    """Names of a CSV's columns, where they are not called ``client``, ``label``, ``recording`` and ``time``.

    With ``channels`` these columns are the channels, in this order, and what is named nowhere is left out; without, every
    other column is one that may be one.
    """

    client: str | None = None
    label: str | None = None
    recording: str | None = None
    time: str | None = None
    channels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """A scenario's settings for own data, ``data.*``, by the same names; the defaults read what is certain."""

    columns: Columns = field(default_factory=Columns)
    gap: float = GAP
    unlabelled: tuple[str, ...] | None = None
    """Labels that say that there is none; None when nobody has said so, and what may be one is refused."""
    missing: tuple[str, ...] | None = None
    """What stands for a missing value, words in any case or numbers; windows that hold one are left out. None as above."""
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    time_format: str | None = None


PLAIN = Reading()
