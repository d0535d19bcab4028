"""Who is on when: a file that says so, or days and nights that are drawn.

Time is counted in rounds: round 1 is from 0 to 1.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError, did_you_mean

On = npt.NDArray[np.bool_]

_NIGHT, _STATE = 21, 22  # what a random stream is for
_EVENING, _HOURS, _SPREAD = (
    22.0,
    8.0,
    1.5,
)  # when a night begins, how long it is, and how far beginnings are apart
_UNITS = {"round": ("from_round", "to_round"), "hour": ("from_hour", "to_hour")}


class Availability(Protocol):
    """Which clients are on."""

    mark: int
    """A checksum of what it was made of, where that is a file; 0 otherwise."""

    def on(self, time: float) -> On:
        """Of each client of the federation [n], whether it is on."""
        ...


class Trace:
    """A CSV with the columns ``client``, ``from_round``, ``to_round`` (both count), or ``client``, ``from_hour``, ``to_hour`` (the end does not).

    A client may have many rows. One that has none is never on.

    Args:
        path: of the file.
        names: of the federation's clients.
        round_hours: how long a round lasts.

    Raises ``DataError`` with one line that names the file and the row.
    """

    def __init__(self, path: Path, names: Sequence[str], round_hours: float = 1.0) -> None:
        try:
            data = path.read_bytes()
            rows = csv.reader(data.decode("utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise DataError(f"sampling.availability: cannot read {path}: {why}") from None
        self.mark, self._count = zlib.crc32(data), len(names)
        header = [name.strip() for name in next(rows, [])]
        unit = next((unit for unit, ends in _UNITS.items() if header == ["client", *ends]), None)
        if unit is None:
            raise DataError(
                f"{path}: the first line is {','.join(header)!r}; it has to be client,from_round,to_round or client,from_hour,to_hour"
            )
        places = {name: place for place, name in enumerate(names)}
        clients, begins, ends = [], [], []
        for number, row in enumerate(rows, 2):
            if not row:
                continue
            try:
                name, begin, end = row[0].strip(), float(row[1]), float(row[2])
                if not (len(row) == 3 and begin <= end):
                    raise ValueError
            except (ValueError, IndexError):
                raise DataError(
                    f"{path}, line {number}: {','.join(row)!r}; a row is a client and two numbers, the first not above the second"
                ) from None
            if name not in places:
                raise DataError(
                    f"{path}, line {number}: no client is called {name!r}; {did_you_mean(name, list(places))}"
                )
            clients.append(places[name])
            begins.append(begin - 1 if unit == "round" else begin / round_hours)
            ends.append(end if unit == "round" else end / round_hours)
        if not clients:
            raise DataError(f"{path} has no rows: nobody would ever be on")
        self._clients, self._begins, self._ends = np.array(clients), np.array(begins), np.array(ends)

    def on(self, time: float) -> On:
        """Whose row holds ``time``."""
        found = np.zeros(self._count, bool)
        found[self._clients[(self._begins <= time) & (time < self._ends)]] = True
        return found


class DayNight:
    """Phones that are charged at night: a client's night begins at about 22 h of its time zone and lasts eight hours; hour 0 is midnight in the first.

    In each round a client is on with one probability in its night and another by day, whatever it was before. Drawn by the seed, for all
    clients of a federation: who they are with does not matter.
    """

    mark = 0

    def __init__(
        self, seed: int, clients: int, round_hours: float, night_share: float, day_share: float, zones: int
    ) -> None:
        rng = np.random.default_rng(np.random.SeedSequence([seed, _NIGHT]))
        zone = rng.integers(0, zones, clients) * (24.0 / zones)
        evening = _EVENING + _SPREAD * rng.standard_normal(clients)
        self._evening = ((evening - zone) % 24).astype(np.float32)
        self._seed, self._hours, self._shares = seed, round_hours, (night_share, day_share)

    def on(self, time: float) -> On:
        """Drawn anew for each whole round."""
        night = (time * self._hours - self._evening) % 24 < _HOURS
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, _STATE, int(time)]))
        on: On = rng.random(len(night), np.float32) < np.where(night, *self._shares)
        return on
