"""What goes into a local step and comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from fedali.task import Batch

Parameters = dict[str, Tensor]


class State(NamedTuple):
    """What training changes: theta [P], the optimizer's moments ([P] or [0]), local prototypes [L], all flat."""

    theta: Tensor
    first_moment: Tensor
    second_moment: Tensor
    local_prototypes: Tensor


class Shared(NamedTuple):
    """What the server sent: its theta [P] and prototypes [L]; constant during a round."""

    theta: Tensor
    prototypes: Tensor


class Hyper(NamedTuple):
    """Numbers that may change from step to step or round to round, as 0-d tensors."""

    step_size: Tensor
    correction: Tensor
    influence: Tensor
    decay: Tensor


class StepMetrics(NamedTuple):
    """Sums over the batch: loss times weight, correct predictions, weight."""

    loss: Tensor
    correct: Tensor
    weight: Tensor


class Step(Protocol):
    """The local step. ``extra`` is ``kept`` [P - T] where the method's slots have such a part, then ``phase``, 0-d, where it
    trains in phases, then what the optimizer takes besides step size and correction (``Optimizer.inputs``), 0-d.
    """

    def __call__(
        self, state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
    ) -> tuple[State, StepMetrics]:
        """The next state, and sums over the batch."""
        ...


Occupancy = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Predict = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]
Gated = Callable[..., tuple[Tensor, Tensor]]
Adapt = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Begin = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Measure = Callable[..., Tensor]
Finish = Callable[..., Tensor]
