"""Our engines by name, one that trains nothing, and one that takes the time of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

import torch

from benchmarks.measure import Stopwatch
from fedali.engines.base import Engine, Labels, Query, TrainJob, TrainResult
from fedali.engines.choose import EngineName, build_engine
from fedali.engines.loop import LoopEngine
from fedali.errors import FedaliError
from fedali.recipe import Recipe


def compared() -> tuple[str, ...]:
    """Engines that are compared unless others are asked for: stacking clients is for GPUs."""
    return ("loop", "compiled", "onnx", *(["stacked"] if torch.cuda.is_available() else []))


class MissingEngineError(Exception):
    """An engine cannot be used here; the message says why."""


def make_engine(
    name: str,
    recipe: Recipe,
    *,
    workers: int,
) -> Engine:
    """The engine called ``name``; ``echo`` trains nothing.

    Raises ``MissingEngineError`` when there is no such engine, or something it needs is missing.
    """
    if name == "echo":
        return EchoEngine()
    known = get_args(EngineName)
    if name not in known:
        raise MissingEngineError(f"no engine is called {name!r}; there are {', '.join(known)}")
    try:
        engine = build_engine(
            name,  # type: ignore[arg-type]
            recipe,
            workers=workers,
        )
    except (ImportError, FedaliError) as error:
        raise MissingEngineError(f"engine {name!r} cannot be used: {error}") from error
    if name == "stacked":  # it has no workers: torch's threads share each step
        torch.set_num_threads(workers)
    return engine


class EchoEngine:
    """Gives back what it got: what is left is the cost of everything around training."""

    cohort_size = LoopEngine.cohort_size

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Each job's own start."""
        for job in jobs:
            yield TrainResult(job.theta, job.local_prototypes, 0.0, 0.0)

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """Each set's own labels."""
        for query in queries:
            yield [samples.y for samples in query.samples]


class TimedEngine:
    """An engine whose training adds to a stopwatch: the time its consumer waits for results."""

    def __init__(self, engine: Engine, watch: Stopwatch) -> None:
        self._engine, self._watch = engine, watch

    @property
    def cohort_size(self) -> int:
        """As the engine says."""
        return self._engine.cohort_size

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """As the engine does."""
        with self._watch("training"):
            results = iter(self._engine.train(jobs))
        while True:
            with self._watch("training"):
                result = next(results, None)
            if result is None:
                return
            yield result

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """As the engine does."""
        return self._engine.predict(queries)
