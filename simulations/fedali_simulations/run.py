"""One run: one line of the table and one seed, from its checkpoint or from the beginning to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pandas as pd
from flwr.app import Context

from fedali.methods import SharedState
from fedali.methods.base import Vector
from fedali_server import records
from fedali_server.client_app import make_client_app
from fedali_server.contract import Site
from fedali_server.strategy import PersonalisedStrategy, RoundResult
from fedali_simulations.folder import Checkpoint, RunFolder
from fedali_simulations.grid import LocalGrid
from fedali_simulations.jobs import Job, Progress, Report, identity
from fedali_simulations.scenario import TrainingSettings
from fedali_simulations.setup import Setup, build_setup
from fedali_simulations.tensorfile import Piece


def run_job(job: Job, report: Report = lambda _: None) -> None:
    """Run or resume a job; everything it finds is in its folder afterwards."""
    scenario, line = job.scenario, job.line
    folder = RunFolder(job.folder, identity(scenario, line, job.seed))
    rounds = scenario.training.rounds
    if folder.done:
        report(Progress(line.title, job.seed, rounds, rounds))
        return
    setup = build_setup(scenario, line, job.seed, workers=job.workers, clients=folder.clients)
    folder.sweep()
    checkpoint = folder.read_checkpoint() or Checkpoint(0, setup.initial)
    setup.store.restore(checkpoint.kept)
    report(Progress(line.title, job.seed, checkpoint.round, rounds))

    def done(round_: int, accuracy: float) -> None:
        report(Progress(line.title, job.seed, round_, rounds, accuracy))

    writer = RoundWriter(folder, setup, checkpoint, scenario.training, done)
    strategy = PersonalisedStrategy(
        setup.method,
        setup.layouts,
        on_round=writer,
        generalisation_every=scenario.evaluation.generalisation_every,
    )

    def find_site(context: Context) -> Site:
        return setup.sites[int(context.node_config["partition-id"])]

    started, processor = time.perf_counter(), time.process_time()
    first = checkpoint.round + 1
    strategy.start(
        LocalGrid(make_client_app(find_site), len(setup.sites)),
        records.from_shared(checkpoint.shared),
        rounds,
        first_round=first,
    )
    folder.finish(
        {
            "rounds": rounds,
            "best_round": writer.best_round,
            "parameters": setup.layouts.parameters.size,
            "prototype_values": setup.layouts.prototypes.size,
            "notes": list(setup.federation.notes),
            "timing": {
                "first_round": first,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - processor,
            },
        }
    )


class RoundWriter:
    """Writes what a finished round leaves; the checkpoint last."""

    def __init__(
        self,
        folder: RunFolder,
        setup: Setup,
        checkpoint: Checkpoint,
        training: TrainingSettings,
        report: Callable[[int, float], None],
    ) -> None:
        self.folder, self.setup, self.report = folder, setup, report
        self.rounds, self.keep_models = training.rounds, training.keep_models
        self.best_round, self.best_score = checkpoint.best_round, checkpoint.best_score
        self.names = [client.name for client in setup.federation.clients]

    def __call__(self, result: RoundResult) -> None:
        """Write what ``result`` and the sites hold."""
        shared = records.to_shared(result.arrays)
        rows = self._rows(result)
        self.folder.write_metrics(result.round, rows)
        last = result.round == self.rounds
        score = float(rows["validation"].mean()) if "generalisation" in rows else -1.0
        if score > self.best_score or (last and not self.best_round):
            self.best_round, self.best_score = result.round, score
            if self.keep_models == "all":
                self.folder.write_best(shared, self._pieces(), result.round, self.setup.store.where)
        if last and self.keep_models != "none":
            self.folder.write_personal(self.setup.layouts, self._models(shared))
        if last and self.setup.unseen:
            adapted = self.setup.sites[0].adapt(self.setup.unseen, result.round, shared)
            self.folder.write_unseen(self._named(adapted))
        kept = self.setup.store.checkpoint()
        self.folder.write_checkpoint(Checkpoint(result.round, shared, kept, self.best_round, self.best_score))
        self.report(result.round, float(rows["personalisation"].mean()))

    def _rows(self, result: RoundResult) -> pd.DataFrame:
        rows = pd.DataFrame(result.train)
        if result.evaluate:
            rows = rows.merge(pd.DataFrame(result.evaluate), on="client", how="outer")
        return self._named({str(name): list(rows[name]) for name in rows}).assign(round=result.round)

    def _named(self, columns: dict[str, list[float]]) -> pd.DataFrame:
        rows = pd.DataFrame(columns)
        rows["client"] = [self.names[int(client)] for client in rows["client"]]
        return rows

    def _pieces(self) -> Iterator[tuple[str, Piece]]:
        for site in self.setup.sites:
            for client, piece in site.pieces():
                yield self.names[client], piece

    def _models(self, shared: SharedState) -> Iterator[tuple[str, Vector, Vector]]:
        for site in self.setup.sites:
            for client, theta, prototypes in site.models(shared):
                yield self.names[client], theta, prototypes
