"""Optimizers over one flat vector, as pure functions; what depends on the step number comes from the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedali.optimizers.schedules import adam_schedule, sgd_schedule


class Optimizer(Protocol):
    """What the local step needs of an optimizer."""

    @property
    def learning_rate(self) -> float:
        """Base step size."""
        ...

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments before the first step; a moment that is not used has length 0."""
        ...

    def schedule(self, step: int) -> tuple[float, float]:
        """The two numbers that change with the step (1, 2, ...): step size and correction of the second moment."""
        ...

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New theta and moments."""
        ...


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); bias corrections come from the host, see ``fedali.optimizers.schedules``."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Two zero vectors."""
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def schedule(self, step: int) -> tuple[float, float]:
        """``lr / (1 - beta1^t)`` and ``1 / sqrt(1 - beta2^t)``."""
        return adam_schedule(step, self.learning_rate, self.beta1, self.beta2)

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step."""
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * (gradient * gradient)
        return theta - step_size * (first / (torch.sqrt(second) * correction + self.epsilon)), first, second


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum (0: without)."""

    learning_rate: float = 0.05
    momentum: float = 0.9

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """A zero momentum; the second moment is not used."""
        return torch.zeros_like(theta), theta.new_zeros(0)

    def schedule(self, step: int) -> tuple[float, float]:
        """The constant step size."""
        return sgd_schedule(step, self.learning_rate)

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step."""
        first = self.momentum * first + gradient
        return theta - step_size * first, first, second
