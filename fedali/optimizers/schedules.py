"""What an optimizer takes from the host, computed in double precision; without torch: of each round, and of each step.

Bias corrections computed in single precision inside the step would cost 1e-5 of every early update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, get_args

from fedali.errors import SettingsError, did_you_mean

Kind = Literal["constant", "cosine", "step"]
KINDS: tuple[str, ...] = get_args(Kind)


class Numbers(Protocol):
    """What an optimizer takes at step 1, 2, ... of a round whose learning rate is ``factor`` times its own."""

    def __call__(self, step: int, factor: float = 1.0) -> tuple[float, ...]:
        """Step size, correction of the second moment, and ``shrink`` where weights decay apart from the gradient."""
        ...


@dataclass(frozen=True)
class RateSchedule:
    """The learning rate over a federation's rounds, as a factor of the optimizer's own.

    A client's optimizer begins anew in each round, and so does not know of rounds: all steps of one have the same rate. What is trained
    outside of rounds has the factor 1.

    Args:
        kind: ``constant``; ``cosine``: as torch's ``CosineAnnealingLR``, a step a round; ``step``: as ``StepLR``.
        warmup: rounds before it, in which the factor climbs by ``1 / (warmup + 1)`` each, as ``LinearLR`` from there.
        rounds: cosine: all, warm-up included; a later round has the factor ``floor``.
        floor: cosine: the factor that it nears.
        every: step: rounds between two drops.
        drop: step: what the factor is multiplied by.

    Raises ``SettingsError`` for values that make no sense.
    """

    kind: Kind = "constant"
    warmup: int = 0
    rounds: int = 0
    floor: float = 0.0
    every: int = 10
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"schedule is {self.kind!r}; {did_you_mean(str(self.kind), KINDS)}")
        if self.warmup < 0 or self.every < 1 or not 0 < self.drop <= 1 or not 0 <= self.floor <= 1:
            raise SettingsError(
                f"a schedule has a warm-up of 0 rounds or more, drops every 1 or more by up to 1, and a floor of 0 to 1, not {self}"
            )
        if self.kind == "cosine" and self.rounds <= self.warmup:
            raise SettingsError(
                f"a cosine over {self.rounds} rounds has none left after a warm-up of {self.warmup}: give it more rounds"
            )

    def factor(self, round_: int) -> float:
        """What the learning rate of round 1, 2, ... is multiplied by.

        >>> [RateSchedule("step", every=2, drop=0.5).factor(round_) for round_ in (1, 2, 3, 5)]
        [1.0, 1.0, 0.5, 0.25]
        """
        if round_ <= self.warmup:
            return max(1, round_) / (self.warmup + 1)
        after = max(0, round_ - 1 - self.warmup)
        if self.kind == "cosine":
            share = min(1.0, after / (self.rounds - self.warmup))
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2
        return self.drop ** (after // self.every) if self.kind == "step" else 1.0

    def check_rounds(self, rounds: int, wanted: str) -> None:
        """Raise ``SettingsError`` where the last of so many rounds would train with a learning rate of 0; ``wanted`` says what to do."""
        if rounds >= 1 and self.factor(rounds) <= 0:
            raise SettingsError(
                f"the learning rate's cosine ends after {self.rounds} rounds, and there are {rounds}: those beyond would train nothing. {wanted}"
            )

    def to_plain(self) -> dict[str, Any]:
        """As JSON values; what is not set is left away, so that the constant one is empty."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


CONSTANT = RateSchedule()


def adam_schedule(
    step: int, learning_rate: float, beta1: float, beta2: float, weight_decay: float = 0.0
) -> tuple[float, ...]:
    """Step size ``lr / (1 - beta1^t)`` and correction ``1 / sqrt(1 - beta2^t)`` of step t = 1, 2, ...

    With weight decay ``1 - lr weight_decay`` too: AdamW's (Loshchilov & Hutter 2019), by which weights shrink before the step.

    >>> adam_schedule(1, 0.001, 0.5, 0.75)
    (0.002, 2.0)
    """
    numbers = (learning_rate / (1 - beta1**step), (1 - beta2**step) ** -0.5)
    return (*numbers, 1 - learning_rate * weight_decay) if weight_decay else numbers


def sgd_schedule(step: int, learning_rate: float) -> tuple[float, float]:
    """The constant step size; SGD has no second moment to correct."""
    return learning_rate, 1.0


def schedule_of(optimizer: Mapping[str, Any]) -> Numbers:
    """What an optimizer takes that is described by its name and settings, as a bundle's manifest does.

    Raises ``SettingsError`` for an unknown name.

    >>> schedule_of({"name": "sgd", "learning_rate": 0.05, "momentum": 0.9})(7)
    (0.05, 1.0)
    """
    name, rate = optimizer["name"], float(optimizer["learning_rate"])
    if name == "adam":
        beta1, beta2 = float(optimizer["beta1"]), float(optimizer["beta2"])
        decay = float(optimizer.get("weight_decay", 0.0))
        return lambda step, factor=1.0: adam_schedule(step, factor * rate, beta1, beta2, decay)
    if name == "sgd":
        return lambda step, factor=1.0: sgd_schedule(step, factor * rate)
    raise SettingsError(f"unknown optimizer {name!r}; {did_you_mean(str(name), ['adam', 'sgd'])}")


def takes(optimizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what the step of such an optimizer takes besides step size and correction.

    >>> takes({"name": "adam", "weight_decay": 0.01}), takes({"name": "sgd", "weight_decay": 0.01})
    (('shrink',), ())
    """
    return ("shrink",) if optimizer["name"] == "adam" and optimizer.get("weight_decay") else ()
