"""What is called while a simulation runs: after each round, for each client in it, and when a run is complete.

Callbacks are in the process that ``simulate`` was called in, wherever rounds are trained; they see what a round left in the run's folder, after its
checkpoint. So what they do changes no result, and nothing that they do can harm the run's files.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedali.errors import FedaliError
from fedali_simulations.jobs import Job, Progress, Report
from fedali_simulations.metrics import MetricsFiles

HOOKS = ("on_round", "on_client", "on_end")
_NO_MEASURE = ("client", "round", "samples", "test_samples")


@dataclass(frozen=True)
class ClientEnded:
    """A client's part in a round is complete: its ``numbers`` by name, those that are known, as in the run's metrics."""

    method: str
    seed: int
    round: int
    client: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class RoundEnded:
    """A round is complete: ``means`` by name over the clients whose number is known, and how many ``clients`` trained."""

    method: str
    seed: int
    round: int
    rounds: int
    clients: int
    means: Mapping[str, float]


@dataclass(frozen=True)
class RunEnded:
    """One method and seed is complete; ``facts`` are those of its ``done.json``."""

    method: str
    seed: int
    rounds: int
    folder: Path
    facts: Mapping[str, Any]


class Callback:
    """Base of callbacks; anything with one of these three will do::

    class Print(Callback):
        def on_round(self, ended):
            print(ended.method, ended.round, ended.means["personalisation"])

    simulate("digits", callbacks=[Print(), "tensorboard"])
    """

    def on_client(self, ended: ClientEnded) -> None:
        """A client's part in a round; called for all of a round before ``on_round``."""

    def on_round(self, ended: RoundEnded) -> None:
        """A round; once for each of a run, also where it is resumed."""

    def on_end(self, ended: RunEnded) -> None:
        """A method and seed."""


class Calls:
    """Turns progress into calls.

    Args:
        callbacks: to call; a tracker has ``last_round``, and is told of rounds before that it did not see.
        jobs: of the run.
        folder: of the run.
        report: called first.

    Raises ``FedaliError`` with one line that names the callback when one fails.
    """

    def __init__(self, callbacks: Sequence[Any], jobs: Iterable[Job], folder: Path, report: Report) -> None:
        self._callbacks, self._folder, self._report = list(callbacks), folder, report
        self._jobs = {(job.line.title, job.seed): job for job in jobs}
        self._told: dict[tuple[int, str, int], int] = {}
        self._new: set[tuple[str, int]] = set()  # that did not end before this call
        self._lock = threading.Lock()  # jobs may be threads

    def __call__(self, progress: Progress) -> None:
        """A round is complete, or a run has begun or ended."""
        with self._lock:
            self._report(progress)
            self._hear(progress)

    def _hear(self, progress: Progress) -> None:
        method, seed = progress.label, progress.seed
        if not progress.done:
            self._new.add((method, seed))
        rows: dict[int, list[dict[str, Any]] | None] = {}
        for place, callback in enumerate(self._callbacks):
            key = place, method, seed
            if key not in self._told:
                last = getattr(callback, "last_round", None)
                self._told[key] = progress.round if last is None else last(method, seed)
            before = self._told[key]
            for round_ in range(before + 1, progress.round + 1):
                if round_ not in rows:
                    rows[round_] = self._read(method, seed, round_)
                self._tell(callback, progress, round_, rows[round_])
                self._told[key] = round_
            if progress.done and ((method, seed) in self._new or self._told[key] > before):
                self._end(callback, progress)

    def _tell(
        self, callback: Any, progress: Progress, round_: int, rows: list[dict[str, Any]] | None
    ) -> None:
        if rows is None:
            return
        method, seed = progress.label, progress.seed
        for row in rows:
            numbers = {name: value for name, value in row.items() if name not in ("client", "round")}
            ended = ClientEnded(method, seed, round_, row["client"], numbers)
            self._call(callback, "on_client", ended, f"round {round_} of {method}, seed {seed}")
        names = dict.fromkeys(name for row in rows for name in row if name not in _NO_MEASURE)
        means = {}
        for name in names:
            known = [row[name] for row in rows if name in row]
            means[name] = math.fsum(known) / len(known)
        trained = sum("train_loss" in row or "personalisation" in row for row in rows)
        whole = RoundEnded(method, seed, round_, progress.rounds, trained, means)
        self._call(callback, "on_round", whole, f"round {round_} of {method}, seed {seed}")

    def _end(self, callback: Any, progress: Progress) -> None:
        job = self._jobs[progress.label, progress.seed]
        facts = json.loads((job.folder / "done.json").read_text("utf-8"))
        ended = RunEnded(progress.label, progress.seed, progress.rounds, job.folder, facts)
        self._call(callback, "on_end", ended, f"{progress.label}, seed {progress.seed}")

    def _call(self, callback: Any, hook: str, ended: object, where: str) -> None:
        try:
            called = getattr(callback, hook, None)
            if called is not None:
                called(ended)
        except Exception as error:
            why = " ".join(str(error).split())
            raise FedaliError(
                f"callback {type(callback).__name__}.{hook} failed after {where}: {type(error).__name__}: {why}. "
                f"The run's files are whole: fedali simulate --resume {self._folder} goes on"
            ) from error

    def _read(self, method: str, seed: int, round_: int) -> list[dict[str, Any]] | None:
        """What each client found in a round, without what is not known; None where that is no round of this run."""
        columns = MetricsFiles(self._jobs[method, seed].folder).read_round(round_)
        if columns is None:
            return None
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [{name: value for name, value in row.items() if value == value} for row in rows]
