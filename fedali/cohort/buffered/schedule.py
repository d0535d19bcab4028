"""Who trains when, where the server waits for a number of reports and not for certain clients: FedBuff's clock, simulated.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022 (arXiv 2106.06639), algorithm 1: a number of clients train
at any time, each from the state that was the server's when it began. When K have reported, the server makes a step.

Time is counted in what a client of median speed with an average number of samples needs. A client's speed is log-normal, drawn once.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.cohort.sampling.availability import Availability
from fedali.errors import FedaliError, SettingsError

Ids = npt.NDArray[np.int64]
Table = dict[str, npt.NDArray[Any]]

_SPEED, _STEP = 31, 32  # what a random stream is for
_TRIES = 64  # draws before those that are free are counted
_PATIENCE = 100_000  # units of time without anybody


@dataclass(frozen=True)
class Buffered:
    """How the server waits.

    Args:
        size: K, reports that make a step.
        concurrency: clients that train at any time.
        spread: standard deviation of the logarithm of their speeds.
        server_rate: what a step is multiplied with.
    """

    size: int
    concurrency: int
    spread: float = 1.0
    server_rate: float = 1.0


@dataclass(frozen=True)
class Report:
    """A client that has reported: which server's state it began with (0: the initial one), and when it ended."""

    client: int
    version: int
    time: float


@dataclass(frozen=True)
class Step:
    """What makes a step of the server: ``reports`` in the order of their times, who ``dropped`` out meanwhile, and how many were ``on`` at its end."""

    reports: list[Report]
    dropped: list[int]
    on: int


class Schedule:
    """The clients of a federation over time; it follows from the seed alone, not from what they learn.

    Args:
        settings: of the buffer.
        seed: of everything random.
        clients: that take part [n].
        sizes: training samples of all clients of the federation, by their numbers.
        availability: who is on; asked at the beginning of a training, by the whole unit of time that this lies in.
        dropout: probability that a client never reports; its place is free when it would have.

    A client counts once in a step: after its report it begins again when the server has made its step. Raises ``SettingsError`` where K is more than
    all clients.
    """

    def __init__(
        self,
        settings: Buffered,
        seed: int,
        clients: Ids,
        sizes: npt.NDArray[Any],
        availability: Availability | None = None,
        dropout: float = 0.0,
    ) -> None:
        if settings.size > len(clients):
            raise SettingsError(
                f"buffered.size is {settings.size}, and there are {len(clients)} clients: a step could never be made"
            )
        self.settings, self._seed, self._clients = settings, seed, clients
        self._availability, self._dropout = availability, dropout
        rng = np.random.default_rng(np.random.SeedSequence([seed, _SPEED]))
        self._durations = np.exp(settings.spread * rng.standard_normal(len(sizes))) * sizes / sizes.mean()
        self.version, self.clock = 0, 0.0
        self._flights: list[tuple[float, int, int]] = []  # a heap: when it ends, who, from which version
        self._busy: set[int] = set()
        self._on: tuple[int, Ids] = (-1, clients)

    @property
    def versions(self) -> set[int]:
        """Server's states that somebody still trains from."""
        return {version for _, _, version in self._flights}

    def step(self) -> Step:
        """Time passes until the server makes its next step."""
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, _STEP, self.version]))
        reports: list[Report] = []
        dropped: list[int] = []
        reported: set[int] = set()
        waited = 0
        self._fill(rng, reported)
        while len(reports) < self.settings.size:
            if not self._flights:
                self.clock, waited = float(int(self.clock) + 1), waited + 1
                if waited > _PATIENCE:
                    raise FedaliError(
                        f"nobody was on for {_PATIENCE:,} rounds of step {self.version + 1}: see sampling.availability"
                    )
            else:
                self.clock, client, version = heapq.heappop(self._flights)
                self._busy.remove(client)
                if self._dropout and rng.random() < self._dropout:
                    dropped.append(client)
                else:
                    reports.append(Report(client, version, self.clock))
                    reported.add(client)
            if (
                len(reports) < self.settings.size
            ):  # else who comes next begins with the state that is made now
                self._fill(rng, reported)
        self.version += 1
        return Step(reports, dropped, len(self._there()))

    def checkpoint(self) -> Table:
        """What has to be known to go on, for ``restore``."""
        flights = sorted(self._flights)
        return {
            "buffered.clock": np.array([self.clock]),
            "buffered.version": np.array([self.version], np.int64),
            "buffered.ends": np.array([end for end, _, _ in flights], np.float64),
            "buffered.clients": np.array([client for _, client, _ in flights], np.int64),
            "buffered.from": np.array([version for _, _, version in flights], np.int64),
        }

    def restore(self, table: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a ``checkpoint``, or begin anew where it is empty."""
        self.version, self.clock, self._flights = 0, 0.0, []
        if "buffered.clock" in table:
            self.version, self.clock = int(table["buffered.version"][0]), float(table["buffered.clock"][0])
            columns = (table[f"buffered.{name}"].tolist() for name in ("ends", "clients", "from"))
            self._flights = list(zip(*columns, strict=True))
        self._busy = {client for _, client, _ in self._flights}

    def _there(self) -> Ids:
        """Clients that are on now."""
        if self._availability is None:
            return self._clients
        if self._on[0] != int(self.clock):
            now = int(self.clock)
            self._on = now, self._clients[self._availability.on(now)[self._clients]]
        return self._on[1]

    def _fill(self, rng: np.random.Generator, reported: set[int]) -> None:
        """Clients begin, drawn uniformly from those that are on and free, until as many train as may."""
        while len(self._flights) < self.settings.concurrency:
            client = self._drawn(rng, reported)
            if client is None:
                return
            end = self.clock + float(self._durations[client])
            heapq.heappush(self._flights, (end, client, self.version))
            self._busy.add(client)

    def _drawn(self, rng: np.random.Generator, reported: set[int]) -> int | None:
        there = self._there()
        for _ in range(_TRIES if len(there) else 0):
            client = int(there[rng.integers(len(there))])
            if client not in self._busy and client not in reported:
                return client
        taken = np.fromiter(self._busy | reported, np.int64)
        free = there[~np.isin(there, taken)]
        return int(free[rng.integers(len(free))]) if len(free) else None
