"""What an optimizer takes from the host at each step, computed in double precision; without torch.

Bias corrections computed in single precision inside the step would cost 1e-5 of every early update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedali.errors import SettingsError, did_you_mean

Schedule = Callable[[int], tuple[float, float]]


def adam_schedule(step: int, learning_rate: float, beta1: float, beta2: float) -> tuple[float, float]:
    """Step size ``lr / (1 - beta1^t)`` and correction ``1 / sqrt(1 - beta2^t)`` of step t = 1, 2, ...

    >>> adam_schedule(1, 0.001, 0.5, 0.75)
    (0.002, 2.0)
    """
    return learning_rate / (1 - beta1**step), (1 - beta2**step) ** -0.5


def sgd_schedule(step: int, learning_rate: float) -> tuple[float, float]:
    """The constant step size; SGD has no second moment to correct."""
    return learning_rate, 1.0


def schedule_of(optimizer: Mapping[str, Any]) -> Schedule:
    """The schedule of an optimizer that is described by its name and settings, as a bundle's manifest does.

    Raises ``SettingsError`` for an unknown name.

    >>> schedule_of({"name": "sgd", "learning_rate": 0.05, "momentum": 0.9})(7)
    (0.05, 1.0)
    """
    name, rate = optimizer["name"], float(optimizer["learning_rate"])
    if name == "adam":
        beta1, beta2 = float(optimizer["beta1"]), float(optimizer["beta2"])
        return lambda step: adam_schedule(step, rate, beta1, beta2)
    if name == "sgd":
        return lambda step: sgd_schedule(step, rate)
    raise SettingsError(f"unknown optimizer {name!r}; {did_you_mean(str(name), ['adam', 'sgd'])}")
