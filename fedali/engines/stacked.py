"""Many clients in one call: their states as rows of matrices, convolutions as batched matrix products. For GPUs.

Clients differ in how many steps they take. They are sorted by it, and each call runs those that are not done: a prefix of
the rows that shrinks. On a GPU every size of the prefix would be compiled, so it is rounded up to a few sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    TrainingSettings,
    TrainJob,
    TrainResult,
)
from fedali.engines.loop import LoopEngine
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers.rules import Optimizer
from fedali.step import State

StackedStep = Callable[..., tuple[Tensor, ...]]

_MEMORY_SHARE = 0.4  # of a GPU's free memory, for what a step computes


class StackedEngine:
    """Trains up to ``cohort_size`` clients at once.

    Args:
        model: the architecture.
        method: its objective.
        optimizer: of the local step.
        settings: epochs and batch size.
        input_shape: of one sample.
        decay: of local prototypes.
        device: None for the GPU where there is one, else the CPU, where stacking gains little and compiles nothing.
        precision: of matrix products on a GPU: ``highest`` (float32) or ``high`` (tf32).
        cohort_size: None for what fits into the GPU's memory.
        dtype: of all numbers; float64 to compare engines.
    """

    def __init__(
        self,
        model: Model,
        method: Method,
        optimizer: Optimizer,
        settings: TrainingSettings,
        *,
        input_shape: Sequence[int],
        decay: float,
        device: torch.device | str | None = None,
        precision: str = "highest",
        cohort_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.set_float32_matmul_precision(precision)
        self.settings, self.optimizer, self.decay, self.dtype = settings, optimizer, decay, dtype
        self._graph = capture_step(
            model,
            method.objective,
            optimizer,
            input_shape=input_shape,
            batch=settings.batch_size,
            dtype=dtype,
            table=MATMUL,
        )
        self.cohort_size = cohort_size or self._fitting()
        self._step_of_any_size = over_clients(_on(self._graph, self.device))
        self._compiled: dict[int, StackedStep] = {}
        self._packed: tuple[tuple[int, ...], _Packed] | None = None
        self._eager = LoopEngine(
            model, method, optimizer, settings, decay=decay, dtype=dtype, device=self.device
        )

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
        schedule = _Schedule(jobs, self.settings)
        order = schedule.order
        data = self._pack([jobs[index].samples for index in order])
        indices = torch.from_numpy(schedule.rows).to(self.device)
        weights = torch.from_numpy(schedule.weights).to(self.device, self.dtype)
        counted = torch.from_numpy(schedule.last_epoch).to(self.device, self.dtype)
        theta = self._rows(jobs[index].theta for index in order)
        local = self._rows(jobs[index].local_prototypes for index in order)
        first, second = (torch.stack([m] * len(jobs)) for m in self.optimizer.initial(theta[0]))
        state = State(theta, first, second, local)
        shared = (self._number(jobs[0].shared_theta), self._number(jobs[0].shared_prototypes))
        influence, decay = self._number(jobs[0].influence), self._number(self.decay)
        sums = torch.zeros(3, len(jobs), dtype=self.dtype, device=self.device)
        for step, active in enumerate(schedule.active):
            size, function = self._function(active, len(jobs))
            numbers = (self._number(n) for n in self.optimizer.schedule(step + 1))
            found = function(
                *(part[:size] for part in state),
                data.samples(indices[step, :size], self.dtype),
                data.y[indices[step, :size]],
                weights[step, :size],
                *shared,
                *numbers,
                influence,
                decay,
            )
            for part, new in zip(state, found, strict=False):  # rows that are done stay as they are
                part[:active] = new[:active]
            metrics = torch.stack(found[len(state) : len(STEP_OUTPUTS)])
            sums[:, :active] += metrics[:, :active] * counted[step, :active]
        loss, correct, weight = sums.cpu().double().numpy()
        thetas, prototypes = state.theta.cpu().numpy(), state.local_prototypes.cpu().numpy()
        results: list[TrainResult | None] = [None] * len(jobs)
        for row, index in enumerate(order):
            job = jobs[index]
            occupancy = None
            if job.count_occupancy:
                mine = State(*(part[row] for part in state))
                occupancy = self._eager.count(mine, job)
            results[index] = TrainResult(
                thetas[row].copy(),
                prototypes[row].copy(),
                float(loss[row] / weight[row]),
                float(correct[row] / weight[row]),
                occupancy,
            )
        return [result for result in results if result is not None]

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


class _Schedule:
    """Which samples each client sees in which step: the same as in the loop engine.

    Attributes:
        order: clients by their number of steps, most first; rows are in this order.
        active: how many rows take part in each step.
        rows: [steps, clients, batch] positions in the packed data.
        weights: [steps, clients, batch] 0 for padding.
        last_epoch: [steps, clients] 1 in a client's last epoch.
    """

    def __init__(self, jobs: Sequence[TrainJob], settings: TrainingSettings) -> None:
        size, epochs = settings.batch_size, settings.epochs
        batches = [-(-len(job.samples) // size) for job in jobs]
        self.order = sorted(range(len(jobs)), key=lambda index: -batches[index])
        steps = epochs * batches[self.order[0]]
        self.rows = np.zeros((steps, len(jobs), size), np.int64)
        self.weights = np.zeros((steps, len(jobs), size), np.float32)
        self.last_epoch = np.zeros((steps, len(jobs)), np.float32)
        first = 0
        for row, index in enumerate(self.order):
            rng, count = np.random.default_rng(jobs[index].seed), len(jobs[index].samples)
            for epoch in range(epochs):
                order = rng.permutation(count)
                for batch in range(batches[index]):
                    step, chosen = epoch * batches[index] + batch, order[batch * size : (batch + 1) * size]
                    self.rows[step, row] = first + np.resize(chosen, size)
                    self.weights[step, row, : len(chosen)] = 1.0
                    self.last_epoch[step, row] = epoch == epochs - 1
            first += count
        ends = [epochs * batches[index] for index in self.order]
        self.active = [sum(end > step for end in ends) for step in range(steps)]


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


def _on(graph: Graph, device: torch.device) -> Graph:
    """The graph with its constants and example on a device."""
    module = graph.module.to(device)
    return Graph(module, graph.inputs, graph.outputs, tuple(t.to(device) for t in graph.example))
