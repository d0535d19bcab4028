"""A recipe: all that says how a client trains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fedali.methods.base import Method
from fedali.models.base import Model
from fedali.optimizers.rules import Optimizer
from fedali.slots import epochs_of
from fedali.step import Vectors
from fedali.tasks import CLASSIFICATION, Task


@dataclass(frozen=True, eq=False)
class Recipe:
    """What engines, captures, export and sites take.

    Args:
        model: the architecture; its own weights are not read.
        method: objective, slots, phases.
        optimizer: of the local step.
        input_shape: of one sample.
        epochs: of a client's training in a round.
        batch_size: samples of a step.
        decay: of the local prototypes.
        task: what is learnt.
    """

    model: Model
    method: Method
    optimizer: Optimizer
    input_shape: tuple[int, ...]
    epochs: int = 1
    batch_size: int = 32
    decay: float = 0.999
    task: Task = CLASSIFICATION

    @cached_property
    def vectors(self) -> Vectors:
        """How the flat vectors are laid out."""
        return Vectors(self.model, self.method)

    @property
    def epochs_by_phase(self) -> list[int]:
        """Epochs of each phase of the training."""
        return epochs_of(self.method.phases, self.epochs)

    @property
    def counts_occupancy(self) -> bool:
        """Whether the method asks how many embeddings each prototype answers for."""
        prototypes = self.method.prototypes
        return prototypes is not None and prototypes.masses == "occupancy"
