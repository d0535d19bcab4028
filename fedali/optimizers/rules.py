"""Optimizers over one flat vector, as pure functions; what depends on the step number comes from the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedali.errors import SettingsError
from fedali.optimizers.schedules import adam_schedule, sgd_schedule, takes


class Optimizer(Protocol):
    """What the local step needs of an optimizer."""

    @property
    def learning_rate(self) -> float:
        """Base step size."""
        ...

    @property
    def clip_norm(self) -> float:
        """What the gradient's norm may be at most; 0: anything."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what ``update`` takes besides step size and correction."""
        ...

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments before the first step; a moment that is not used has length 0."""
        ...

    def schedule(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        """The numbers that change with the step (1, 2, ...): step size, correction of the second moment, and those of ``inputs``.

        ``factor``: of the learning rate in this round, see ``fedali.optimizers.schedules.RateSchedule``.
        """
        ...

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
        *more: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New theta and moments."""
        ...


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); bias corrections come from the host, see ``fedali.optimizers.schedules``.

    Args:
        learning_rate: base step size.
        beta1: of the first moment.
        beta2: of the second moment.
        epsilon: beside its root.
        weight_decay: decoupled: torch's AdamW, not its Adam; 0: none.
        clip_norm: of the gradient, see ``fedali.step.gradients.clipped``; 0: none.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        _check(self.weight_decay, self.clip_norm)

    @property
    def inputs(self) -> tuple[str, ...]:
        """``shrink`` where weights decay."""
        return takes(described(self))

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Two zero vectors."""
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def schedule(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        """``lr / (1 - beta1^t)`` and ``1 / sqrt(1 - beta2^t)``; and ``1 - lr weight_decay`` where weights decay."""
        return adam_schedule(step, factor * self.learning_rate, self.beta1, self.beta2, self.weight_decay)

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
        *more: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step; weights decay first."""
        for shrink in more:
            theta = theta * shrink
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * (gradient * gradient)
        return theta - step_size * (first / (torch.sqrt(second) * correction + self.epsilon)), first, second


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum (0: without).

    Args:
        learning_rate: base step size.
        momentum: of the gradient.
        weight_decay: as torch's: L2, added to the gradient; 0: none.
        clip_norm: of the gradient without the decay, see ``fedali.step.gradients.clipped``; 0: none.
    """

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        _check(self.weight_decay, self.clip_norm)

    @property
    def inputs(self) -> tuple[str, ...]:
        """None."""
        return takes(described(self))

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """A zero momentum; the second moment is not used."""
        return torch.zeros_like(theta), theta.new_zeros(0)

    def schedule(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        """The constant step size."""
        return sgd_schedule(step, factor * self.learning_rate)

    def update(
        self,
        theta: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        step_size: Tensor,
        correction: Tensor,
        *more: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step."""
        if self.weight_decay:
            gradient = gradient + self.weight_decay * theta
        first = self.momentum * first + gradient
        return theta - step_size * first, first, second


def described(optimizer: Adam | SGD) -> dict[str, Any]:
    """An optimizer by its name and settings, as a bundle's manifest has it; what is off is left away.

    >>> described(SGD(0.1, clip_norm=1.0))
    {'name': 'sgd', 'learning_rate': 0.1, 'momentum': 0.9, 'clip_norm': 1.0}
    """
    plain = {"name": type(optimizer).__name__.lower(), **vars(optimizer)}
    return {
        name: value for name, value in plain.items() if value or name not in ("weight_decay", "clip_norm")
    }


def _check(weight_decay: float, clip_norm: float) -> None:
    for name, value in (("weight_decay", weight_decay), ("clip_norm", clip_norm)):
        if not 0 <= value < float("inf"):
            raise SettingsError(f"{name} is {value!r}; it has to be 0 (off) or a positive number")
