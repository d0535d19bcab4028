"""A run of ours, in double precision or as simulations have it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.peers.observed import Observed
from fedali.cohort.contract import RoundSettings
from fedali.engines.base import TrainJob
from fedali.engines.loop import LoopEngine
from fedali.methods import SharedState, Trained, Upload, personal_indices
from fedali.slots import slot_slice
from fedali_simulations.scenario import Scenario
from fedali_simulations.setup import Setup

_TRAIN = 0  # see benchmarks.peers.order


def run_ours(scenario: Scenario, setup: Setup) -> Observed:
    """All rounds, by the site that a simulation has."""
    (site,), shared, observed = setup.sites, setup.initial, Observed()
    rounds = scenario.training.rounds
    for round_ in range(1, rounds + 1):
        looked_at = observed.wanted(round_, rounds)
        reply = site.train(RoundSettings(round_, generalisation=looked_at), shared)
        assert reply.upload is not None
        if looked_at:
            _look(observed, setup, round_, [theta for _, theta, _ in site.models(shared)])
        shared = setup.method.aggregate(reply.upload, shared, setup.layouts)
    return observed


def run_in_double(scenario: Scenario, setup: Setup, engine: LoopEngine, seed: int) -> Observed:
    """The same engine, method and order of samples without the store of a simulation, which is in single precision."""
    method, layouts, observed = setup.method, setup.layouts, Observed()
    own, rounds = personal_indices(method, layouts.parameters), scenario.training.rounds
    shared = SharedState(setup.initial.theta.astype(np.float64), setup.initial.prototypes.astype(np.float64))
    train = setup.sites[0].cohort.train
    vectors = [shared.theta for _ in train]
    for round_ in range(1, rounds + 1):
        starts = []
        for vector in vectors:
            starts.append(shared.theta.copy())
            starts[-1][own] = vector[own]
        jobs = [
            TrainJob(
                samples,
                starts[client],
                shared.prototypes,
                shared.theta,
                shared.prototypes,
                method.influence(round_),
                np.random.SeedSequence([seed, _TRAIN, round_, client]),
            )
            for client, samples in enumerate(train)
        ]
        vectors = [result.theta for result in engine.train(jobs)]
        total = Upload(population=len(train))
        for vector, samples in zip(vectors, train, strict=True):
            total += method.upload(Trained(vector, shared.prototypes, len(samples)), shared, layouts)
        if observed.wanted(round_, rounds):
            _look(observed, setup, round_, vectors)
        shared = method.aggregate(total, shared, layouts)
    return observed


def engine_in_double(setup: Setup) -> LoopEngine:
    """The setup's engine in float64."""
    engine = setup.sites[0].engine
    assert isinstance(engine, LoopEngine)
    return LoopEngine(engine.recipe, dtype=torch.float64)


def _look(observed: Observed, setup: Setup, round_: int, vectors: list[np.ndarray]) -> None:
    layout, method = setup.layouts.parameters, setup.method
    sent = [vector[slot_slice(layout, "")] for vector in vectors]
    answers = [vector[slot_slice(layout, method.answer_slot)] for vector in vectors]
    observed.after[round_] = sent, answers
