"""Who trains in a round, by one rule, one seed, and what earlier rounds found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.cohort.sampling.availability import Availability, DayNight, Trace
from fedali.cohort.sampling.draws import by_loss, by_size
from fedali.cohort.sampling.settings import DAY_NIGHT, Sampling
from fedali.errors import CheckpointError

Ids = npt.NDArray[np.int64]
Table = dict[str, npt.NDArray[Any]]

_SAMPLE, _DROP = 1, 23  # what a random stream is for


@dataclass(frozen=True)
class Draw:
    """The clients of a round at one site.

    Args:
        clients: that train and report, sorted.
        weights: of each in the average, where that is not its number of samples.
        dropped: that were chosen too and never report.
        on: how many could have been chosen.
        numbers: of each besides what it finds, for the round's metrics.
    """

    clients: list[int]
    weights: Mapping[int, float] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    on: int = 0
    numbers: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """As plain values, for a run's folder."""
        return {"state": "drawn", "on": self.on, "trained": self.clients, "dropped": self.dropped}


def uniformly(clients: Ids, count: int, seed: int, round_: int, of: Ids | None = None) -> Ids:
    """``count`` of a site's ``clients``, sorted; only those in ``of``, where it is given."""
    among = clients if of is None else of
    if count >= len(among):
        return among
    stream = np.random.SeedSequence([seed, _SAMPLE, round_, int(clients[0])])
    return np.sort(np.random.default_rng(stream).choice(among, count, replace=False))


def availability_of(sampling: Sampling, seed: int, names: Sequence[str] | range) -> Availability | None:
    """Who is on when; None where everybody always is. Raises ``DataError`` for a trace that cannot be read."""
    if not sampling.who_is_on:
        return None
    if sampling.who_is_on != DAY_NIGHT:
        return Trace(Path(sampling.who_is_on), list(map(str, names)), sampling.round_hours)
    shares = sampling.night_share, sampling.day_share
    return DayNight(seed, len(names), sampling.round_hours, *shares, sampling.zones)


class Sampler:
    """Draws the clients of each round; the sites of one process may share it.

    Args:
        sampling: how.
        seed: of everything random.
        sizes: training samples of each client of the federation [n].
        availability: who is on when.
    """

    def __init__(
        self, sampling: Sampling, seed: int, sizes: npt.NDArray[Any], availability: Availability | None = None
    ) -> None:
        self.sampling, self.availability = sampling, availability
        self._seed, self._sizes = seed, sizes
        self._losses = np.full(len(sizes) if sampling.kind == "loss" else 0, np.inf)

    def draw(self, round_: int, clients: Ids, share: float) -> Draw:
        """A ``share`` of a site's ``clients``, at least one, of those that are on: all of them where they are fewer."""
        count = max(1, round(share * len(clients)))
        on = clients
        if self.availability is not None:
            on = clients[self.availability.on(round_ - 1)[clients]]
        chosen, weights = self._chosen(round_, clients, on, count)
        gone = self.dropped(len(chosen), round_, int(clients[0]))
        stay = chosen[~gone].tolist()
        known = {} if weights is None else dict(zip(stay, weights[~gone].tolist(), strict=True))
        return Draw(stay, known, chosen[gone].tolist(), len(on))

    def dropped(self, count: int, *place: int) -> npt.NDArray[np.bool_]:
        """Who of ``count`` clients never reports; ``place`` says when and where they were chosen."""
        if not self.sampling.dropout:
            return np.zeros(count, bool)
        stream = np.random.SeedSequence([self._seed, _DROP, *place])
        gone: npt.NDArray[np.bool_] = np.random.default_rng(stream).random(count) < self.sampling.dropout
        return gone

    def note(self, client: int, loss: float) -> None:
        """The mean training loss of a client that has trained just now."""
        if len(self._losses):
            self._losses[client] = loss

    def checkpoint(self) -> Table:
        """What has to be known to go on, for ``restore``."""
        table: Table = {}
        if len(self._losses):
            known = np.flatnonzero(np.isfinite(self._losses))
            table = {"sampling.clients": known, "sampling.losses": self._losses[known]}
        if self._mark:
            table["sampling.trace"] = np.array([self._mark], np.int64)
        return table

    def restore(self, table: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a ``checkpoint``, or begin anew where it is empty; ``CheckpointError`` where the trace is another one."""
        self._losses[:] = np.inf
        if len(self._losses) and "sampling.losses" in table:
            self._losses[table["sampling.clients"]] = table["sampling.losses"]
        if "sampling.trace" in table and int(table["sampling.trace"][0]) != self._mark:
            raise CheckpointError(
                f"{self.sampling.availability} is not what it was when the run began: bring it back, or start anew"
            )

    @property
    def _mark(self) -> int:
        return 0 if self.availability is None else self.availability.mark

    def _chosen(self, round_: int, clients: Ids, on: Ids, count: int) -> tuple[Ids, npt.NDArray[Any] | None]:
        """Clients, sorted, and their weights."""
        kind = self.sampling.kind
        if kind not in ("size", "loss") or not len(on):
            return uniformly(clients, count, self._seed, round_, on), None
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, _SAMPLE, round_, int(clients[0])]))
        sizes, count = self._sizes[on], min(count, len(on))
        if kind == "size":
            places, weights = by_size(sizes, count, rng)
            return on[places], weights
        places = by_loss(self._losses[on], sizes, count, self.sampling.candidates or 2 * count, rng)
        return on[places], np.ones(len(places))
