"""One run: one line of the table and one seed, from its checkpoint or from the beginning to the end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from flwr.app import Context
from flwr.serverapp import Grid

from fedali.cohort.contract import ClientMetrics, Site
from fedali.cohort.store import Table
from fedali.cohort.tensorfile import Piece
from fedali.errors import DivergedError
from fedali.methods import SharedState, personal_indices
from fedali.methods.base import Vector
from fedali_server.flower import records
from fedali_server.flower.client_app import make_client_app
from fedali_server.flower.strategy import PersonalisedStrategy, RoundResult
from fedali_server.run.folder import Checkpoint, RunFolder
from fedali_simulations.jobs import Job, Progress, Report, identity
from fedali_simulations.machines.grid import LocalGrid
from fedali_simulations.metrics import MetricsFiles
from fedali_simulations.scenario import TrainingSettings
from fedali_simulations.setup import Plan, Setup, build_setup

_TIMEOUT = 43_200.0  # seconds for a round; a Flower message lives no longer


class Clients(Protocol):
    """The clients of a run as its server sees them, wherever they are."""

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """See ``CohortSite.pieces``; of all clients."""
        ...

    def models(self, shared: SharedState) -> Iterator[tuple[int, Vector, Vector]]:
        """See ``CohortSite.models``; of all clients."""
        ...

    def adapt(self, clients: Sequence[int], round_: int, shared: SharedState) -> ClientMetrics:
        """See ``CohortSite.adapt``."""
        ...

    def checkpoint(self) -> Table:
        """See ``ClientStore.checkpoint``; empty where clients' records are not here."""
        ...


class _Here:
    """Clients of sites in this process."""

    def __init__(self, setup: Setup) -> None:
        self._sites = setup.sites
        self.adapt = setup.sites[0].adapt
        self.checkpoint = setup.checkpoint

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        for site in self._sites:
            yield from site.pieces()

    def models(self, shared: SharedState) -> Iterator[tuple[int, Vector, Vector]]:
        for site in self._sites:
            yield from site.models(shared)


def run_job(job: Job, report: Report = lambda _: None) -> None:
    """Run or resume a job; everything it finds is in its folder afterwards."""
    folder = folder_of(job)
    if folder.done:
        report_done(job, report)
        return
    try:
        if job.line.is_baseline:
            from fedali_simulations.baselines.running import run_baseline

            run_baseline(job, folder, report)
            report_done(job, report)
        else:
            _train(job, folder, report)
    except DivergedError as error:
        if not job.may_diverge:
            raise
        folder.finish({"diverged": str(error)})
        report_done(job, report)


def _train(job: Job, folder: RunFolder, report: Report) -> None:
    setup = build_setup(job.scenario, job.line, job.seed, workers=job.workers, clients=folder.clients)
    folder.sweep()
    checkpoint = folder.read_checkpoint() or Checkpoint(0, setup.initial)
    setup.restore(checkpoint.kept)

    def find_site(context: Context) -> Site:
        return setup.sites[int(context.node_config["partition-id"])]

    grid = LocalGrid(make_client_app(find_site), len(setup.sites))
    run_rounds(job, folder, setup, checkpoint, grid, _Here(setup), report)


def folder_of(job: Job) -> RunFolder:
    """Where a job's results go."""
    return RunFolder(job.folder, identity(job.scenario, job.line, job.seed))


def report_done(job: Job, report: Report) -> None:
    """Say that a job is complete."""
    rounds = job.scenario.training.rounds
    report(Progress(job.line.title, job.seed, rounds, rounds, done=True))


def run_rounds(
    job: Job,
    folder: RunFolder,
    plan: Plan,
    checkpoint: Checkpoint,
    grid: Grid,
    clients: Clients,
    report: Report,
) -> None:
    """The rounds after ``checkpoint``, over ``grid``; the job is complete when this returns."""
    scenario = job.scenario
    training = scenario.training_for(job.line)
    rounds = training.rounds
    report(Progress(job.line.title, job.seed, checkpoint.round, rounds))

    def done(round_: int, accuracy: float) -> None:
        report(Progress(job.line.title, job.seed, round_, rounds, accuracy))

    writer = RoundWriter(folder, plan, clients, checkpoint, training, done)
    strategy = PersonalisedStrategy(
        plan.method,
        plan.layouts,
        on_round=writer,
        generalisation_every=scenario.evaluation.generalisation_every,
        ended=lambda: writer.ended,
        empty_rounds=rounds if scenario.sampling.may_be_nobody else 0,
    )
    started, processor = time.perf_counter(), time.process_time()
    first = checkpoint.round + 1
    if not writer.ended:  # killed between its last round and its end
        start = records.from_shared(checkpoint.shared)
        strategy.start(grid, start, rounds, timeout=_TIMEOUT, first_round=first)
    folder.finish(
        {
            "rounds": writer.round,
            "best_round": writer.best_round,
            "parameters": plan.layouts.parameters.size,
            "prototype_values": plan.layouts.prototypes.size,
            "notes": list(plan.federation.notes),
            "timing": {
                "first_round": first,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - processor,
            },
        }
    )
    report_done(job, report)


class RoundWriter:
    """Writes what a finished round leaves; the checkpoint last.

    Attributes:
        round: the last finished one.
        ended: whether no other follows: it is the last of ``training.rounds``, or validation has not been better for ``training.patience``
            rounds. That is looked at in rounds that measure everything, which are those where a round may be chosen.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        clients: Clients,
        checkpoint: Checkpoint,
        training: TrainingSettings,
        report: Callable[[int, float], None],
    ) -> None:
        self.folder, self.plan, self.clients, self.report = folder, plan, clients, report
        self.rounds, self.keep_models = training.rounds, training.keep_models
        self.best_round, self.best_score = checkpoint.best_round, checkpoint.best_score
        self.round, self._patience = checkpoint.round, training.patience
        self.ended = self.round >= self.rounds
        if checkpoint.is_stale(self._patience):
            self.ended |= "generalisation" in (MetricsFiles(folder.path).read_round(self.round) or {})
        self.names = [client.name for client in plan.federation.clients]
        self._began = checkpoint.shared if plan.method.answer == "gate" else None

    def __call__(self, result: RoundResult) -> None:
        """Write what ``result`` and the sites hold."""
        shared = records.to_shared(result.arrays)
        rows = self._rows(result)
        MetricsFiles(self.folder.path).write_metrics(result.round, rows)
        measured = "generalisation" in rows
        score = self.plan.task.better(_mean(rows.get("validation", [])))
        drawn = [report for report in result.reports if report.get("state") == "drawn"]
        if drawn:
            self.folder.write_drawn(result.round, _together(drawn, self.names))
        last = result.round == self.rounds
        first = measured and not self.best_round and not math.isnan(score)
        if first or (measured and score > self.best_score) or (last and not self.best_round):
            self.best_round, self.best_score = result.round, score
            if self.keep_models == "all":
                where = personal_indices(self.plan.method, self.plan.layouts.parameters)
                pieces = ((self.names[client], piece) for client, piece in self.clients.pieces())
                self.folder.write_best(shared, pieces, result.round, where, self._began)
        now = Checkpoint(result.round, shared, {}, self.best_round, self.best_score)
        self.ended = last = last or (measured and now.is_stale(self._patience))
        if last and self.keep_models != "none":
            models = (
                (self.names[client], theta, prototypes)
                for client, theta, prototypes in self.clients.models(shared)
            )
            self.folder.write_personal(self.plan.layouts, models)
        if last and self.plan.unseen:
            adapted = self.clients.adapt(self.plan.unseen, result.round, shared)
            MetricsFiles(self.folder.path).write_unseen(self._named(adapted))
        self._began = None if self._began is None else shared
        self.folder.write_checkpoint(replace(now, kept=self.clients.checkpoint()))
        self.round = result.round
        self.report(result.round, _mean(rows.get("personalisation", [])))

    def _rows(self, result: RoundResult) -> dict[str, list[Any]]:
        train = result.train or {"client": []}  # nobody was on, or all dropped out
        columns = _side_by_side(train, result.evaluate) if result.evaluate else train
        named = self._named(columns)
        return {**named, "round": [result.round] * len(named["client"])}

    def _named(self, columns: ClientMetrics) -> dict[str, list[Any]]:
        return {**columns, "client": [self.names[int(client)] for client in columns["client"]]}


def _together(drawn: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """What all sites drew, whoever answered first; clients by name."""
    lists = {
        key: [names[client] for client in sorted(client for one in drawn for client in one[key])]
        for key in ("trained", "dropped")
    }
    return {"on": sum(one["on"] for one in drawn), **lists}


def _side_by_side(one: ClientMetrics, other: ClientMetrics) -> ClientMetrics:
    """The columns of both, a row for each client that either has, by client; NaN where one knows nothing."""
    clients = sorted({*one["client"], *other["client"]})
    joined: ClientMetrics = {"client": clients}
    for columns in (one, other):
        row = {client: place for place, client in enumerate(columns["client"])}
        for name, values in columns.items():
            if name != "client":
                joined[name] = [values[row[client]] if client in row else math.nan for client in clients]
    return joined


def _mean(values: Sequence[float]) -> float:
    """Of the clients that have a value; NaN when none has."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan
