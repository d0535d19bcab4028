"""A site of simulated clients that report when they are ready: FedBuff, see ``fedali.cohort.buffered.schedule``.

With the reports of a step, i of K, each trained from theta_i to theta_i', and the server t - t_i steps further now:

    theta  <-  theta + rate / K  sum_i  (theta_i' - theta_i) / sqrt(1 + t - t_i)

as published: every report counts the same, whatever its number of samples, and the sum is divided by K, not by its weights. It is the plain mean of
``theta + rate s_i (theta_i' - theta_i)``, so the server averages as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from fedali.cohort.buffered.schedule import Report, Schedule
from fedali.cohort.sampling.sampler import Draw
from fedali.cohort.site import CohortSite
from fedali.cohort.store import Table
from fedali.engines.base import Samples, TrainResult
from fedali.methods import SharedState, Trained


def staleness_weight(steps: int) -> float:
    """What a report weighs that began ``steps`` steps of the server ago: 1 / sqrt(1 + steps).

    >>> staleness_weight(0), staleness_weight(3)
    (1.0, 0.5)
    """
    return 1 / math.sqrt(1 + steps)


class BufferedSite(CohortSite):
    """A cohort site whose rounds are steps of the server.

    Args:
        schedule: of its clients.
        site: arguments of ``CohortSite``.
    """

    def __init__(self, schedule: Schedule, *site: Any) -> None:
        super().__init__(*site)
        self.schedule, self.tells_who = schedule, True
        self._states: dict[int, SharedState] = {}  # by version, those that somebody trains from
        self._reports: dict[int, Report] = {}

    def received(self, client: int, trained: Trained, shared: SharedState) -> Trained:
        """The state of now, moved by a report's step from the state that it began with; all count the same."""
        version = self._reports[client].version
        weight = self.schedule.settings.server_rate * staleness_weight(self.schedule.version - 1 - version)
        step = trained.theta.astype(np.float64) - self._states[version].theta
        return replace(trained, theta=shared.theta + weight * step, samples=1.0)

    def checkpoint(self) -> Table:
        """Who trains, and the states that they began with."""
        versions = sorted(self.schedule.versions)
        states = [self._states[version] for version in versions]
        return {
            **self.schedule.checkpoint(),
            "buffered.states": np.array(versions, np.int64),
            **{f"buffered.theta.{v}": s.theta for v, s in zip(versions, states, strict=True)},
        }

    def restore(self, table: Table) -> None:
        """Take up a ``checkpoint``, or begin anew where it is empty."""
        self.schedule.restore(table)
        self._states = {
            int(version): SharedState(table[f"buffered.theta.{version}"], np.empty(0, np.float32))
            for version in table.get("buffered.states", ())
        }

    def _draw(self, round_: int, shared: SharedState) -> Draw:
        schedule = self.schedule
        if schedule.version != round_ - 1:
            raise ValueError(f"step {round_} after {schedule.version}")
        self._states = {version: self._states[version] for version in schedule.versions} | {
            schedule.version: shared
        }
        step = schedule.step()
        self._reports = {report.client: report for report in step.reports}
        clients = sorted(self._reports, key=lambda client: self._reports[client].version)  # stable
        numbers = {
            report.client: {"staleness": float(round_ - 1 - report.version), "time": report.time}
            for report in step.reports
        }
        return Draw(clients, {}, step.dropped, step.on, numbers)

    def _chunks(self, clients: Sequence[int]) -> Iterator[Sequence[int]]:
        """Those of a chunk began with the same state."""
        for _, same in groupby(clients, key=lambda client: self._reports[client].version):
            yield from super()._chunks(list(same))

    def _train(
        self, clients: Sequence[int], round_: int, shared: SharedState, sets: Sequence[Samples] | None = None
    ) -> Iterator[TrainResult]:
        began = shared if sets is not None else self._states[self._reports[clients[0]].version]
        return super()._train(clients, round_, replace(began, prototypes=shared.prototypes), sets)
