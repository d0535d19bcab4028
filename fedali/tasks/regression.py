"""Regression: numbers with units for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fedali.errors import SettingsError, did_you_mean
from fedali.targets import Kind, Score, Targets
from fedali.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.task import Batch

_ERRORS = ("squared", "huber")


@dataclass(frozen=True)
class Regression(Task):
    """One number or several, normalised by training samples; errors are told in units.

    Args:
        error: what is minimised, a mean over targets: ``"squared"``, or ``"huber"``: half of it up to ``delta``, and from there linear.
        delta: of the Huber loss, in standard deviations of a target.
        units: of the targets, such as ``["kg", "cm"]``.
    """

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "numbers with units: squared error or Huber; MAE, RMSE, R2 of each target"
    kind: ClassVar[Kind] = "numbers"
    main: ClassVar[Score] = Score("", "nrmse", "RMSE in standard deviations", "less", share=False)
    beside: ClassVar[tuple[Score, ...]] = (Score("_r2", "r2", "R2", share=False),)
    train_name: ClassVar[str] = "train_error"

    error: Literal["squared", "huber"] = "squared"
    delta: float = 1.0
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.error not in _ERRORS:
            raise SettingsError(f"error is {self.error!r}; {did_you_mean(str(self.error), _ERRORS)}")
        if (
            isinstance(self.delta, bool)
            or not isinstance(self.delta, int | float)
            or not 0 < self.delta < math.inf
        ):
            raise SettingsError(f"delta is {self.delta!r}, it has to be a number above 0")
        units = (self.units,) if isinstance(self.units, str) else tuple(self.units)
        if not all(isinstance(unit, str) for unit in units):
            raise SettingsError(f"units are {list(units)!r}; give a word for each target")
        object.__setattr__(self, "units", units)

    def fitted(self, targets: Targets) -> Regression:
        """As it is, where its units are as many as the targets."""
        if self.units and len(self.units) != len(targets.names):
            raise SettingsError(
                f"units has {len(self.units)} words for {len(targets.names)} targets: {', '.join(targets.names)}"
            )
        return self

    def losses(self, output: Output, batch: Batch) -> Tensor:
        """Squared error, or Huber's, a mean over targets."""
        error = output.logits - batch.y
        if self.error == "squared":
            return error.square().mean(-1)
        size = error.abs()
        near = size.clamp(max=self.delta)  # its square, and beyond it a line: the same without a branch
        return (near * (size - near / 2)).mean(-1)

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """Absolute error in standard deviations, a mean over targets, times samples."""
        found: Tensor = ((output.logits - batch.y).abs().mean(-1) * batch.weights).sum()
        return found
