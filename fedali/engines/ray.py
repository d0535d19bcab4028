"""Clients spread over the processes of a Ray cluster: several machines, or several GPUs.

A site stays what it is, one process that keeps its clients' state, aligns and sums; what goes out is one client's training
at a time. Flower's own simulation backend would run whole sites in Ray's processes, whose state no process keeps.
Samples and the server's state are sent once and stay in Ray's object store.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fedali.engines.base import (
    COHORT_SIZE,
    Engine,
    Labels,
    Query,
    Samples,
    TrainJob,
    TrainResult,
)
from fedali.errors import MissingExtraError
from fedali.recipe import Recipe

_AHEAD = 2  # jobs a process holds, so that it never waits
_HELD = 8192  # sets of samples in the object store


class RayEngine:
    """Trains and predicts in ``workers`` processes of the cluster that ``RAY_ADDRESS`` names, or of a local one.

    Each process runs one engine of its own, on its machine's fastest way for one client at a time. One cluster should be
    of one kind of machine: engines differ in the last bits.

    Args:
        recipe: how clients train.
        workers: processes, each with one core, or one GPU where ``gpus`` says so.
        gpus: GPUs of each process; with one, the process stacks no clients but steps on the GPU.
        inner: the engine in each process: ``compiled`` or ``loop``; None for what the machine has.
    """

    cohort_size = COHORT_SIZE

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int = 1,
        gpus: float = 0,
        inner: str | None = None,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        self._ray: Any = ray
        if not ray.is_initialized():
            cores = None if os.environ.get("RAY_ADDRESS") else workers
            ray.init(
                num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        actor = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
        self._workers = [actor.remote(recipe, inner) for _ in range(max(1, workers))]
        self._data: dict[
            int, tuple[Samples, Any]
        ] = {}  # by id; the samples are held, so that ids stay theirs
        self._round: deque[tuple[Any, Any]] = deque(maxlen=4)

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Train each client; results in the order of the jobs."""

        def send(worker: Any, job: TrainJob) -> Any:
            fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
            samples = self._samples_of(fields.pop("samples"))
            theta, prototypes = (
                self._of_round(fields.pop(f"shared_{name}")) for name in ("theta", "prototypes")
            )
            return worker.train.remote(fields, samples, theta, prototypes)

        return self._spread(send, jobs)

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """Predict with each model; results in the order of the queries."""

        def send(worker: Any, query: Query) -> Any:
            samples = [self._samples_of(one) for one in query.samples]
            return worker.predict.remote(dataclasses.replace(query, samples=()), *samples)

        return self._spread(send, queries)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []

    def _spread(self, send: Callable[[Any, Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        """Send jobs to the process that has the fewest; give results in the order of the jobs."""
        waiting: deque[Any] = deque()
        load = dict.fromkeys(range(len(self._workers)), 0)
        owner: dict[Any, int] = {}
        for job in jobs:
            if len(waiting) >= _AHEAD * len(self._workers):
                yield self._result(waiting.popleft(), load, owner)
            index = min(load, key=lambda worker: load[worker])
            reference = send(self._workers[index], job)
            load[index] += 1
            owner[reference] = index
            waiting.append(reference)
        while waiting:
            yield self._result(waiting.popleft(), load, owner)

    def _result(self, reference: Any, load: dict[int, int], owner: dict[Any, int]) -> Any:
        found = self._ray.get(reference)
        load[owner.pop(reference)] -= 1
        return found

    def _samples_of(self, samples: Samples) -> Any:
        """A reference to a client's data in the object store, sent once."""
        if id(samples) not in self._data:
            if len(self._data) >= _HELD:
                del self._data[next(iter(self._data))]  # the oldest
            self._data[id(samples)] = (samples, self._ray.put(samples))
        return self._data[id(samples)][1]

    def _of_round(self, vector: Any) -> Any:
        """A reference to something of the server's; the last few are kept."""
        for known, reference in self._round:
            if known is vector:
                return reference
        self._round.append((vector, self._ray.put(vector)))
        return self._round[-1][1]


class _Worker:
    """What runs in each process."""

    def __init__(self, recipe: Recipe, inner: str | None) -> None:
        import torch

        from fedali.engines.compiled import CompiledEngine
        from fedali.engines.compiler import compiler
        from fedali.engines.loop import LoopEngine

        self.engine: Engine
        if torch.cuda.is_available():
            self.engine = LoopEngine(recipe, device="cuda")
        elif (inner or ("compiled" if compiler() else "loop")) == "compiled":
            self.engine = CompiledEngine(recipe)
        else:
            self.engine = LoopEngine(recipe)

    def train(self, fields: dict[str, Any], samples: Samples, theta: Any, prototypes: Any) -> TrainResult:
        """Train one client."""
        job = TrainJob(samples=samples, shared_theta=theta, shared_prototypes=prototypes, **fields)
        return next(iter(self.engine.train([job])))

    def predict(self, query: Query, *samples: Samples) -> list[Labels]:
        """Predict with one model."""
        return next(iter(self.engine.predict([dataclasses.replace(query, samples=samples)])))
