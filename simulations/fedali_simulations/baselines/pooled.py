"""Pooled: what the same model reaches where nobody keeps anything to himself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedali.data import Normalisation
from fedali.engines.base import Samples, TrainJob
from fedali.engines.outputs import Outputs
from fedali.errors import DivergedError
from fedali.methods import SharedState
from fedali_server.run.folder import Checkpoint, RunFolder
from fedali_simulations.baselines.evaluating import Probabilities, evaluated, remembered
from fedali_simulations.baselines.written import write_round
from fedali_simulations.jobs import Job, Progress, Report
from fedali_simulations.metrics import MetricsFiles
from fedali_simulations.scenario import MethodSettings
from fedali_simulations.setup import build_setup

_POOLED = 20  # what a random stream is for


def run_pooled(job: Job, folder: RunFolder, report: Report) -> dict[str, int]:
    """Train as a client does that has all training data: as many epochs in a round, an optimizer that begins anew; from a checkpoint.

    Begins with the weights that all methods begin with. Returns what there is to say of it. Raises ``DivergedError``.
    """
    scenario, line = job.scenario, MethodSettings(name="fedavg", training=job.line.training)
    setup = build_setup(scenario, line, job.seed, workers=job.workers, clients=folder.clients)
    site, training, names = (
        setup.sites[0],
        scenario.training_for(line),
        [c.name for c in setup.federation.clients],
    )
    rounds = training.rounds
    outputs, samples = Outputs(setup.model), _together([site.cohort.train[client] for client in setup.seen])
    now = folder.read_checkpoint() or Checkpoint(0, setup.initial)
    every = scenario.evaluation.generalisation_every
    last = now.round % every == 0 and now.is_stale(training.patience)
    for round_ in range(now.round + 1, rounds + 1):
        if last:
            break
        before = now.shared.theta, now.shared.prototypes
        seed = np.random.SeedSequence([job.seed, _POOLED, round_])
        (trained,) = site.engine.train(
            [TrainJob(samples, *before, *before, 0.0, seed, training.rates.factor(round_))]
        )
        if not np.isfinite(trained.theta).all():
            raise DivergedError(
                f"{job.line.title} diverged in round {round_}: its weights are not finite. Try a lower training.learning_rate"
            )
        shared = SharedState(trained.theta, now.shared.prototypes)

        def says(samples: Samples, shared: SharedState = shared) -> Probabilities:
            ((logits, _),) = outputs(shared.theta, shared.prototypes, [samples], 0.0)
            shares: Probabilities = setup.task.shares(logits)
            return shares

        due = round_ == rounds or round_ % every == 0
        found = evaluated(site.cohort, setup.seen, remembered(says), everyone=due, shared=True)
        found |= {"train_loss": [trained.loss] * len(setup.seen)}
        mean = write_round(folder, round_, found, names)
        score = setup.task.better(mean["validation"])
        first = not now.best_round and not math.isnan(score)
        best = (round_, score) if due and (first or score > now.best_score) else None
        now = Checkpoint(round_, shared, {}, *(best or (now.best_round, now.best_score)))
        last = round_ == rounds or (due and now.is_stale(training.patience))
        if last and setup.unseen:
            adapted = site.adapt(setup.unseen, round_, shared)
            MetricsFiles(folder.path).write_unseen(
                {**adapted, "client": [names[int(client)] for client in adapted["client"]]}
            )
        folder.write_checkpoint(now)
        report(Progress(job.line.title, job.seed, round_, rounds, mean["personalisation"]))
    return {
        "rounds": now.round,
        "best_round": now.best_round or rounds,
        "parameters": setup.layouts.parameters.size,
    }


def _together(sets: Sequence[Samples]) -> Samples:
    """All samples, normalised as each client's are."""
    x = np.concatenate([samples.batch(slice(None)) for samples in sets])
    nothing = Normalisation(np.zeros(1, np.float32), np.ones(1, np.float32))
    return Samples(x, np.concatenate([samples.y for samples in sets]), nothing)
