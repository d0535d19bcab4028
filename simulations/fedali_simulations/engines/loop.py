"""The readable reference engine: the local step called eagerly, client after client."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers import Optimizer
from fedali.step import Batch, Hyper, Objective, Shared, State, make_occupancy, make_predict, make_step
from fedali_simulations.engines.base import (
    Labels,
    Query,
    Samples,
    TrainingSettings,
    TrainJob,
    TrainResult,
    Vector,
)

_INFERENCE_BATCH = 256

Job = TypeVar("Job")
Result = TypeVar("Result")


class _Functions:
    """The step and its companions over a model that one thread uses alone."""

    def __init__(self, model: Model, objective: Objective, optimizer: Optimizer) -> None:
        self.model = model
        self.step = make_step(model, objective, optimizer)
        self.occupancy = make_occupancy(model)


class LoopEngine:
    """One client at a time in each of ``workers`` threads; torch uses one thread for each.

    A client's numbers depend on its own job alone, so that the number of workers does not change a bit of them.
    """

    def __init__(
        self,
        model: Model,
        method: Method,
        optimizer: Optimizer,
        settings: TrainingSettings,
        *,
        decay: float,
        workers: int = 1,
    ) -> None:
        torch.set_num_threads(1)
        self.settings, self.optimizer, self.decay, self.workers = settings, optimizer, decay, max(1, workers)
        self._model, self._objective = model, method.objective
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(self.workers) if self.workers > 1 else None

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Train each client; results in the order of the jobs."""
        return self._map(self._train, jobs)

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """Predict with each model; results in the order of the queries."""
        return self._map(self._predict, queries)

    @property
    def _functions(self) -> _Functions:
        """The functions of this thread: calling a model with given parameters lends them to the module meanwhile."""
        if not hasattr(self._own, "functions"):
            self._own.functions = _Functions(copy.deepcopy(self._model), self._objective, self.optimizer)
        functions: _Functions = self._own.functions
        return functions

    def _map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        if self._pool is None:
            yield from map(work, jobs)
            return
        pending: deque[Future[Result]] = deque()
        for job in jobs:  # a few ahead of the consumer: jobs hold whole models
            pending.append(self._pool.submit(work, job))
            if len(pending) > 2 * self.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _train(self, job: TrainJob) -> TrainResult:
        rng, functions = np.random.default_rng(job.seed), self._functions
        theta = torch.tensor(job.theta)
        state = State(theta, *self.optimizer.initial(theta), torch.tensor(job.local_prototypes))
        shared = Shared(torch.tensor(job.shared_theta), torch.tensor(job.shared_prototypes))
        influence, decay = torch.tensor(job.influence), torch.tensor(self.decay)
        step = 0
        loss = correct = weight = 0.0
        for _ in range(self.settings.epochs):
            loss = correct = weight = 0.0
            for batch in _batches(job.samples, self.settings.batch_size, rng):
                step += 1
                size, correction = self.optimizer.schedule(step)
                hyper = Hyper(torch.tensor(size), torch.tensor(correction), influence, decay)
                state, metrics = functions.step(state, batch, shared, hyper)
                loss, correct = loss + metrics.loss.item(), correct + metrics.correct.item()
                weight += metrics.weight.item()
        occupancy = self._count(state, job) if job.count_occupancy else None
        return TrainResult(
            state.theta.numpy(), state.local_prototypes.numpy(), loss / weight, correct / weight, occupancy
        )

    def _count(self, state: State, job: TrainJob) -> Vector:
        counts = [
            self._functions.occupancy(state.theta, state.local_prototypes, torch.from_numpy(x), job.influence)
            for x in _in_order((job.samples,), _INFERENCE_BATCH)
        ]
        total: Vector = torch.stack(counts).sum(0).numpy()
        return total

    def _predict(self, query: Query) -> list[Labels]:
        predict = make_predict(self._functions.model, matcher=query.matcher)
        theta, prototypes = torch.tensor(query.theta), torch.tensor(query.prototypes)
        # Matched by transport, samples of one batch depend on each other: keep each set's own batches.
        transductive = query.matcher == "ot" and prototypes.numel() > 0
        batches: Iterable[npt.NDArray[np.float32]]
        if transductive:
            batches = (x for s in query.samples for x in _in_order((s,), self.settings.batch_size))
        else:
            batches = _in_order(query.samples, _INFERENCE_BATCH)
        parts = [
            predict(theta, prototypes, torch.from_numpy(x), query.influence).argmax(-1).numpy()
            for x in batches
        ]
        ends = np.cumsum([len(samples) for samples in query.samples])
        return np.split(np.concatenate(parts) if parts else np.empty(0, np.int64), ends[:-1])


def _batches(samples: Samples, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch in random order; the last batch is filled up with samples of weight 0."""
    order = rng.permutation(len(samples))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        filled = np.resize(chosen, size)
        weights = torch.zeros(size)
        weights[: len(chosen)] = 1.0
        yield Batch(torch.from_numpy(samples.batch(filled)), torch.from_numpy(samples.y[filled]), weights)


def _in_order(sets: Sequence[Samples], size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Normalised samples of all sets one after another, in batches that run across them."""
    waiting: list[npt.NDArray[np.float32]] = []
    count = 0
    for samples in sets:
        start = 0
        while start < len(samples):
            piece = samples.batch(slice(start, start + size - count))
            waiting.append(piece)
            start, count = start + len(piece), count + len(piece)
            if count == size:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
