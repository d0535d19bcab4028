"""The readable reference engine: the local step called eagerly, client after client."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedali.alp import Matcher
from fedali.engines.base import (
    COHORT_SIZE,
    Labels,
    Query,
    TrainJob,
    TrainResult,
    Vector,
)
from fedali.engines.common import ClientPool, as_input, batches, in_order, sequential
from fedali.methods.base import begins, finishes
from fedali.recipe import Recipe
from fedali.step import (
    Batch,
    Begin,
    Finish,
    Hyper,
    Measure,
    Occupancy,
    Predict,
    Shared,
    State,
    Step,
    make_begin,
    make_finish,
    make_measure,
    make_occupancy,
    make_predict,
    make_step,
)


@dataclass(frozen=True)
class Functions:
    """What a thread trains and predicts with; it alone calls them."""

    step: Step
    predict: Callable[[Matcher | None], Predict]
    occupancy: Occupancy
    begin: Begin
    measure: Measure
    finish: Finish


class LoopEngine:
    """One client at a time in each of ``workers`` threads; torch uses one thread for each.

    A client's numbers depend on its own job alone, so that the number of workers does not change a bit of them.

    Args:
        recipe: how clients train.
        workers: threads.
        dtype: of all numbers; float64 to compare engines.
        device: where it computes.
    """

    cohort_size = COHORT_SIZE
    inference_batch = 256

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        torch.set_num_threads(1)
        self.recipe, self.optimizer = recipe, recipe.optimizer
        self.dtype, self.device = dtype, torch.device(device)
        self._own = threading.local()
        self._pool = ClientPool(workers)
        self._sizes: tuple[int, ...] = (recipe.batch_size,)

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Train each client; results in the order of the jobs."""
        return self._pool.map(self._train, jobs, cost=lambda job: len(job.samples))

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """Predict with each model; results in the order of the queries."""
        return self._pool.map(self._predict, queries)

    @property
    def _functions(self) -> Functions:
        """The functions of this thread."""
        if not hasattr(self._own, "functions"):
            self._own.functions = self._make_functions()
        functions: Functions = self._own.functions
        return functions

    def _make_functions(self) -> Functions:
        """A model of its own for each thread: calling it with given parameters lends them to the module meanwhile."""
        model = copy.deepcopy(self.recipe.model).to(self.device, self.dtype)
        method = self.recipe.method
        return Functions(
            make_step(model, method, self.optimizer, eager=True, task=self.recipe.task),
            lambda matcher: make_predict(model, matcher=matcher),
            make_occupancy(model),
            make_begin(model, method),
            make_measure(model, method, self.recipe.task),
            make_finish(model, method),
        )

    def _tensor(self, value: Vector | float) -> Tensor:
        """A copy in this engine's dtype, on its device."""
        return torch.tensor(value, dtype=self.dtype, device=self.device)

    def _samples(self, x: npt.NDArray[Any]) -> Tensor:
        return as_input(x, self.dtype).to(self.device)

    def _train(self, job: TrainJob) -> TrainResult:
        rng, functions, recipe = np.random.default_rng(job.seed), self._functions, self.recipe
        vectors, method = recipe.vectors, recipe.method
        theta = self._tensor(job.theta[: vectors.trained.size])
        state = State(theta, *self.optimizer.initial(theta), self._tensor(job.local_prototypes))
        shared = Shared(self._tensor(job.shared_theta), self._tensor(job.shared_prototypes))
        influence, decay = self._tensor(job.influence), self._tensor(recipe.decay)
        rest = self._tensor(job.theta[vectors.trained.size :])
        steps = 0
        loss = correct = weight = 0.0
        for phase, epochs in enumerate(recipe.epochs_by_phase):
            if phase:
                state = state._replace(
                    **dict(zip(("first_moment", "second_moment"), self.optimizer.initial(theta), strict=True))
                )
            if begins(method):
                begun, rest = self.begun(state.theta, rest, job, phase)
                state = state._replace(theta=begun)
            extra = (rest,) if vectors.rest.size else ()
            if method.phases:
                extra = (*extra, self._tensor(float(phase)))
            step = 0
            for _ in range(epochs):
                loss = correct = weight = 0.0
                for batch in batches(job.samples, recipe.batch_size, rng, self._sizes, self.dtype):
                    step += 1
                    numbers = self.optimizer.schedule(step, job.factor)
                    size, correction, *more = (self._tensor(number) for number in numbers)
                    hyper = Hyper(size, correction, influence, decay)
                    batch = Batch(*(part.to(self.device) for part in batch))
                    state, metrics = functions.step(state, batch, shared, hyper, *extra, *more)
                    loss, correct = loss + metrics.loss.item(), correct + metrics.correct.item()
                    weight += metrics.weight.item()
            steps += step
        occupancy = self.count(state, job) if recipe.counts_occupancy else None
        return TrainResult(
            self.finished(state, rest, job, steps),
            state.local_prototypes.cpu().numpy(),
            loss / weight,
            correct / weight,
            occupancy,
        )

    def begun(self, theta: Tensor, rest: Tensor, job: TrainJob, phase: int) -> tuple[Tensor, Tensor]:
        """A client's vector as a phase starts, in the parts that it is given in: what is trained [T], and the rest [P - T]."""
        classes = self.recipe.model.facts.classes
        counts = self.recipe.task.counts(job.samples.y, classes)
        given = (self._tensor(job.shared_theta), self._tensor(counts), self._tensor(float(phase)))
        whole = self._functions.begin(torch.cat([theta, rest]), *given)
        return whole[: len(theta)], whole[len(theta) :]

    def finished(self, state: State, rest: Tensor, job: TrainJob, steps: int) -> Vector:
        """A client's vector [P] after training: what was trained, and what the method makes of the ``rest`` it trained with."""
        vectors, functions = self.recipe.vectors, self._functions
        trained: Vector = state.theta.cpu().numpy()
        if not vectors.rest.size:
            return trained
        if not finishes(self.recipe.method):
            return np.concatenate([trained, np.asarray(job.theta[vectors.trained.size :], trained.dtype)])
        whole = torch.cat([state.theta, rest])
        shared, influence = self._tensor(job.shared_theta), self._tensor(job.influence)
        measured = whole.new_zeros(vectors.measured.size)
        if vectors.measured.size:
            for batch in sequential(job.samples, self.recipe.batch_size, self.dtype):
                x, y, weights = (part.to(self.device) for part in batch)
                local = state.local_prototypes
                measured = measured + functions.measure(whole, local, x, y, weights, shared, influence)
        numbers = (float(steps), job.factor * self.optimizer.learning_rate, float(len(job.samples)))
        kept = functions.finish(whole, shared, measured, *(self._tensor(number) for number in numbers))
        return np.concatenate([trained, kept.cpu().numpy()])

    def count(self, state: State, job: TrainJob) -> Vector:
        """How many of a client's embeddings each prototype answers for, see ``fedali.step.make_occupancy``."""
        counts = [
            self._functions.occupancy(
                self._model_of(state.theta), state.local_prototypes, self._samples(x), job.influence
            )
            for x in in_order((job.samples,), self.inference_batch)
        ]
        total: Vector = torch.stack(counts).sum(0).cpu().numpy()
        return total

    def _model_of(self, theta: Tensor) -> Tensor:
        """The model's parameters [M] at the beginning of a vector."""
        return theta[..., : self.recipe.vectors.model.size]

    def _predict(self, query: Query) -> list[Labels]:
        predict = self._functions.predict(query.matcher)
        theta, prototypes = self._tensor(query.theta), self._tensor(query.prototypes)
        # Matched by transport, samples of one batch depend on each other: keep each set's own batches.
        transductive = query.matcher == "ot" and prototypes.numel() > 0
        batches: Iterable[npt.NDArray[Any]]
        if transductive:
            batches = (x for s in query.samples for x in in_order((s,), self.recipe.batch_size))
        else:
            batches = in_order(query.samples, self.inference_batch)
        parts = [
            self.recipe.task.predict(predict(theta, prototypes, self._samples(x), query.influence))
            .cpu()
            .numpy()
            for x in batches
        ]
        ends = np.cumsum([len(samples) for samples in query.samples])
        return np.split(np.concatenate(parts) if parts else np.empty(0, np.int64), ends[:-1])
