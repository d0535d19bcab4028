"""Many clients in one call: their states as rows of matrices, convolutions as batched matrix products. For GPUs.

Clients differ in how many steps they take. They are sorted by it, and each call runs those that are not done: a prefix of
the rows that shrinks. On a GPU every size of the prefix would be compiled, so it is rounded up to a few sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedali.capture.captures import STEP_OUTPUTS, Graph, capture_step, over_clients, stack
from fedali.capture.decompositions import MATMUL
from fedali.engines.base import (
    COHORT_SIZE,
    Labels,
    Query,
    Samples,
    TrainJob,
    TrainResult,
)
from fedali.engines.loop import LoopEngine
from fedali.errors import SettingsError
from fedali.methods.base import begins
from fedali.recipe import Recipe
from fedali.step import Shared, State

StackedStep = Callable[..., tuple[Tensor, ...]]

_MEMORY_SHARE = 0.4  # of a GPU's free memory, for what a step computes


class StackedEngine:
    """Trains up to ``cohort_size`` clients at once.

    Args:
        recipe: how clients train.
        device: None for the GPU where there is one, else the CPU, where stacking gains little and compiles nothing.
        precision: of matrix products on a GPU: ``highest`` (float32) or ``high`` (tf32).
        cohort_size: None for what fits into the GPU's memory.
        dtype: of all numbers; float64 to compare engines.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        device: torch.device | str | None = None,
        precision: str = "highest",
        cohort_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if recipe.model.takes_tokens:
            raise SettingsError(
                "engine 'stacked' takes measurements, and samples are ids of tokens: use engine 'compiled', 'onnx' or 'loop'"
            )
        torch.set_float32_matmul_precision(precision)
        self.recipe, self.optimizer, self.dtype = recipe, recipe.optimizer, dtype
        self._graph = capture_step(
            recipe.model,
            recipe.method,
            recipe.optimizer,
            input_shape=recipe.input_shape,
            batch=recipe.batch_size,
            dtype=dtype,
            table=MATMUL,
            task=recipe.task,
        )
        self.cohort_size = cohort_size or self._fitting()
        self._step_of_any_size = over_clients(_on(self._graph, self.device))
        self._compiled: dict[int, StackedStep] = {}
        self._packed: tuple[tuple[int, ...], _Packed] | None = None
        self._eager = LoopEngine(recipe, dtype=dtype, device=self.device)

    def train(self, jobs: Iterable[TrainJob]) -> Iterator[TrainResult]:
        """Train each client; results in the order of the jobs."""
        waiting = iter(jobs)
        while cohort := list(islice(waiting, self.cohort_size)):
            yield from self._train(cohort)

    def predict(self, queries: Iterable[Query]) -> Iterator[list[Labels]]:
        """Predict with each model; results in the order of the queries."""
        return self._eager.predict(queries)

    def _fitting(self) -> int:
        """How many clients' steps the GPU's memory holds, from the sizes of everything one step computes."""
        if self.device.type != "cuda":
            return COHORT_SIZE
        values = (node.meta.get("tensor_meta") for node in self._graph.module.graph.nodes)
        each = sum(v.shape.numel() * v.dtype.itemsize for v in values if hasattr(v, "shape"))
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(4096, int(_MEMORY_SHARE * free / max(1, each))))

    def _train(self, jobs: list[TrainJob]) -> list[TrainResult]:
        recipe, vectors = self.recipe, self.recipe.vectors
        order = _by_steps(jobs, recipe.batch_size)
        data = self._pack([jobs[index].samples for index in order])
        theta = self._rows(jobs[index].theta[: vectors.trained.size] for index in order)
        rest = self._rows(jobs[index].theta[vectors.trained.size :] for index in order)
        local = self._rows(jobs[index].local_prototypes for index in order)
        state = State(theta, *self._fresh(theta), local)
        shared = Shared(self._number(jobs[0].shared_theta), self._number(jobs[0].shared_prototypes))
        rngs = {index: np.random.default_rng(jobs[index].seed) for index in order}
        sums, steps = torch.zeros(3, len(jobs)), np.zeros(len(jobs), np.int64)
        for phase, epochs in enumerate(recipe.epochs_by_phase):
            if phase:
                state = State(state.theta, *self._fresh(state.theta), state.local_prototypes)
            if begins(recipe.method):
                for row, index in enumerate(order):
                    theta[row], rest[row] = self._eager.begun(theta[row], rest[row], jobs[index], phase)
            schedule = _Schedule(jobs, order, rngs, epochs, recipe.batch_size)
            extra = (rest,) if vectors.rest.size else ()
            phases = (self._number(float(phase)),) if recipe.method.phases else ()
            sums = self._phase(jobs, state, shared, data, schedule, extra, phases)
            steps += schedule.steps
        loss, correct, weight = sums.cpu().double().numpy()
        prototypes = state.local_prototypes.cpu().numpy()
        results: list[TrainResult | None] = [None] * len(jobs)
        for row, index in enumerate(order):
            job = jobs[index]
            mine = State(*(part[row] for part in state))
            results[index] = TrainResult(
                self._eager.finished(mine, rest[row], job, int(steps[row])).copy(),
                prototypes[row].copy(),
                float(loss[row] / weight[row]),
                float(correct[row] / weight[row]),
                self._eager.count(mine, job) if recipe.counts_occupancy else None,
            )
        return [result for result in results if result is not None]

    def _phase(
        self,
        jobs: list[TrainJob],
        state: State,
        shared: Shared,
        data: _Packed,
        schedule: _Schedule,
        per_client: tuple[Tensor, ...],
        phases: tuple[Tensor, ...],
    ) -> Tensor:
        """Train all clients for one phase, in place; sums of loss, correct predictions and weight [3, clients] of its last epoch."""
        indices = torch.from_numpy(schedule.rows).to(self.device)
        weights = torch.from_numpy(schedule.weights).to(self.device, self.dtype)
        counted = torch.from_numpy(schedule.last_epoch).to(self.device, self.dtype)
        influence, decay = self._number(jobs[0].influence), self._number(self.recipe.decay)
        sums = torch.zeros(3, len(jobs), dtype=self.dtype, device=self.device)
        for step, active in enumerate(schedule.active):
            size, function = self._function(active, len(jobs))
            numbers = self.optimizer.schedule(step + 1, jobs[0].factor)
            step_size, correction, *more = (self._number(number) for number in numbers)
            found = function(
                *(part[:size] for part in state),
                data.samples(indices[step, :size], self.dtype),
                data.targets(indices[step, :size], self.dtype),
                weights[step, :size],
                *shared,
                step_size,
                correction,
                influence,
                decay,
                *(part[:size] for part in per_client),
                *phases,
                *more,
            )
            for part, new in zip(state, found, strict=False):  # rows that are done stay as they are
                part[:active] = new[:active]
            metrics = torch.stack(found[len(state) : len(STEP_OUTPUTS)])
            sums[:, :active] += metrics[:, :active] * counted[step, :active]
        return sums

    def _fresh(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Moments [clients, ...] before the first step."""
        first, second = self.optimizer.initial(theta[0])
        return torch.stack([first] * len(theta)), torch.stack([second] * len(theta))

    def _function(self, active: int, clients: int) -> tuple[int, StackedStep]:
        """A step for at least ``active`` rows, and for how many."""
        if self.device.type != "cuda":
            return active, self._step_of_any_size
        size = clients
        while -(-size // 2) >= active and size > 1:
            size = -(-size // 2)
        if size not in self._compiled:
            module = stack(_on(self._graph, self.device), size).module
            self._compiled[size] = torch.compile(module, mode="reduce-overhead", fullgraph=True)
        return size, self._compiled[size]

    def _pack(self, samples: list[Samples]) -> _Packed:
        """The clients' data on the device; kept for the next round, when it is the same clients'."""
        key = tuple(id(one.x) for one in samples)
        if self._packed is None or self._packed[0] != key:
            self._packed = None
            self._packed = (key, _Packed.of(samples, self.device))
        return self._packed[1]

    def _rows(self, vectors: Iterable[npt.ArrayLike]) -> Tensor:
        return torch.stack([torch.tensor(v, dtype=self.dtype) for v in vectors]).to(self.device)

    def _number(self, value: npt.ArrayLike) -> Tensor:
        return torch.tensor(value, dtype=self.dtype, device=self.device)


def _by_steps(jobs: Sequence[TrainJob], size: int) -> list[int]:
    """Jobs by their number of steps, most first."""
    return sorted(range(len(jobs)), key=lambda index: -len(jobs[index].samples) // size)


class _Schedule:
    """Which samples each client sees in which step of a phase: the same as in the loop engine.

    Attributes:
        active: how many rows take part in each step.
        rows: [steps, clients, batch] positions in the packed data.
        weights: [steps, clients, batch] 0 for padding.
        last_epoch: [steps, clients] 1 in a client's last epoch.
        steps: [clients] of each.
    """

    def __init__(
        self,
        jobs: Sequence[TrainJob],
        order: Sequence[int],
        rngs: Mapping[int, np.random.Generator],
        epochs: int,
        size: int,
    ) -> None:
        batches = [-(-len(jobs[index].samples) // size) for index in order]
        steps = epochs * batches[0]
        self.rows = np.zeros((steps, len(jobs), size), np.int64)
        self.weights = np.zeros((steps, len(jobs), size), np.float32)
        self.last_epoch = np.zeros((steps, len(jobs)), np.float32)
        first = 0
        for row, index in enumerate(order):
            rng, count = rngs[index], len(jobs[index].samples)
            for epoch in range(epochs):
                shuffled = rng.permutation(count)
                for batch in range(batches[row]):
                    step, chosen = epoch * batches[row] + batch, shuffled[batch * size : (batch + 1) * size]
                    self.rows[step, row] = first + np.resize(chosen, size)
                    self.weights[step, row, : len(chosen)] = 1.0
                    self.last_epoch[step, row] = epoch == epochs - 1
            first += count
        self.steps = np.array([epochs * count for count in batches], np.int64)
        self.active = [int((self.steps > step).sum()) for step in range(steps)]


@dataclass(frozen=True)
class _Packed:
    """All clients' samples one after another, as stored, on the device."""

    x: Tensor
    y: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, samples: Sequence[Samples], device: torch.device) -> _Packed:
        axes = samples[0].x.ndim - 1

        def statistics(values: Sequence[npt.NDArray[np.float32]]) -> Tensor:
            shaped = [v.reshape((1,) * (axes - v.ndim) + v.shape) for v in values]
            return torch.from_numpy(np.stack(shaped))[:, None].to(device)

        return cls(
            torch.from_numpy(np.concatenate([one.x for one in samples])).to(device),
            torch.from_numpy(np.concatenate([one.y for one in samples])).to(device),
            statistics([one.normalisation.mean for one in samples]),
            statistics([one.normalisation.std for one in samples]),
        )

    def samples(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalised batches [clients, batch, *shape] of ``rows`` [clients, batch]."""
        clients = len(rows)
        x = self.x[rows].to(torch.float32)
        return ((x - self.mean[:clients]) / self.std[:clients]).to(dtype)

    def targets(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Classes [clients, batch] or targets [clients, batch, T] of ``rows`` [clients, batch]."""
        return self.y[rows].to(dtype) if self.y.is_floating_point() else self.y[rows]


def _on(graph: Graph, device: torch.device) -> Graph:
    """The graph with its constants and example on a device."""
    module = graph.module.to(device)
    return Graph(module, graph.inputs, graph.outputs, tuple(t.to(device) for t in graph.example))
