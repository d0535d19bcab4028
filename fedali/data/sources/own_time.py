"""Times of a CSV's rows: what order recordings are in, and where they pause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError

_ISO = re.compile(
    r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})"
    r"(?:[T ]([0-9]{2})(:?)([0-9]{2})(?:\6([0-9]{2})(?:[.,]([0-9]+))?)? ?(?:Z|UTC|GMT|(?:UTC|GMT)?([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)  # the same in every version of Python, unlike ``datetime.fromisoformat``

Indices = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]


def iso_moment(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 time, UTC where it names no zone; None for what is none.

    >>> iso_moment("1970-01-01T00:01:00Z"), iso_moment("1970-01-01 00:01"), iso_moment("noon")
    (60.0, 60.0, None)
    >>> iso_moment("1970-01-01T02:01:00.5+0200"), iso_moment("19700101T000100.5"), iso_moment("1970-01-01 00:01:00 UTC")
    (60.5, 60.5, 60.0)
    """
    parts = _ISO.fullmatch(text)
    if parts is None:
        return None
    year, _, month, day, hour, _, minute, second, fraction, sign, hours, minutes = parts.groups()
    away = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-away if sign == "-" else away)
        found = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone
        )
        found = found.replace(microsecond=int(f"{fraction or '0':0<6.6}"))
    except ValueError:
        return None
    return found.timestamp()


def check_order(path: Path, times: Times, lines: Sequence[int], begins: npt.NDArray[np.bool_]) -> None:
    """Raise ``DataError`` where time goes back within a recording, each of which ``begins`` [n] at a row.

    Equal times are those of a packet.
    """
    back = ~begins[1:] & (np.diff(times) < 0)
    if back.any():
        line = lines[int(np.argmax(back)) + 1]
        raise DataError(
            f"{path}, line {line}: time does not increase, it goes back; sort the rows, or start a new recording there "
            "(data.columns.recording names the column) if the clock began anew or passed midnight, or give its times dates"
        )


def pauses(times: Times, recording: Indices, gap: float) -> npt.NDArray[np.bool_]:
    """Which rows [n] come after a pause of more than ``gap`` median intervals of their recording; intervals of 0 do not count.

    >>> pauses(np.array([0.0, 1, 2, 3, 14, 15]), np.zeros(6, np.int64), 10).tolist()
    [False, False, False, False, True, False]
    """
    after = np.zeros(len(times), bool)
    edges = np.flatnonzero(np.diff(recording)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(times)], strict=True):
        steps = np.diff(times[begin:end])
        if (steps > 0).any():
            after[begin + 1 : end] = steps > gap * np.median(steps[steps > 0])
    return after


def still(times: Times, recording: Indices) -> str | None:
    """A note on recordings whose time never moves, such as dates that a spreadsheet rounded: nothing is known of their pauses.

    >>> still(np.array([5.0, 5, 5, 0, 1]), np.array([0, 0, 0, 1, 1]))
    'time never moves in 1 of 2 recordings, so that pauses cannot be seen there'
    """
    edges = np.flatnonzero(np.diff(recording)) + 1
    begins, ends = np.append(0, edges), np.append(edges, len(times)) - 1
    count = int(np.count_nonzero((ends > begins) & (times[begins] == times[ends])))
    note = f"time never moves in {count} of {len(begins)} recordings, so that pauses cannot be seen there"
    return note if count else None


def interval_of(times: Times, recording: Indices, paused: npt.NDArray[np.bool_]) -> float | None:
    """What is between two rows: the median interval, divided among the rows of a packet; None where time never moves.

    >>> rows, none = np.zeros(6, np.int64), np.zeros(6, bool)
    >>> interval_of(np.array([0.0, 2, 4, 6, 8, 10]), rows, none), interval_of(np.array([0.0, 0, 4, 4, 8, 8]), rows, none)
    (2.0, 1.6)
    """
    inside = (np.diff(recording) == 0) & ~paused[1:]
    steps = np.diff(times)[inside]
    moves = steps[steps > 0]
    return float(np.median(moves) * len(moves) / len(steps)) if moves.size else None


def in_order(times: Times, recording: Indices, client: Indices) -> tuple[Indices, int]:
    """Numbers of the recordings [n] so that those of a client rise with their times, and how many clients have none to go by.

    A client whose recordings overlap in time has no one clock for them: its recordings stay in the order of the rows.

    >>> in_order(np.array([50.0, 60, 0, 10]), np.array([0, 0, 1, 1]), np.zeros(4, np.int64))
    (array([1, 1, 0, 0]), 0)
    """
    begins = np.flatnonzero(np.diff(recording, prepend=-1))
    ends = np.append(begins[1:], len(recording)) - 1
    first, last, owner = times[begins], times[ends], client[begins]
    number, without = np.arange(len(begins)), 0
    for one in np.unique(owner):
        places = np.flatnonzero(owner == one)
        order = places[np.argsort(first[places], kind="stable")]
        if (first[order[1:]] < last[order[:-1]]).any():
            without += 1
        else:
            number[order] = places
    return number[recording], without
