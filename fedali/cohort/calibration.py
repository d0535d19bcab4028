"""Calibration of models, whose classes an engine gives and whose probabilities it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedali.answers.gate import Array, probabilities
from fedali.engines.base import Labels, Samples, Vector
from fedali.engines.outputs import Outputs
from fedali.metrics import calibration_error


class Calibration:
    """The expected calibration error of a model with parameters [M] and prototypes [L], each sample alone.

    Args:
        outputs: runs the model.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def __call__(
        self, theta: Vector, prototypes: Vector, sets: Sequence[Samples], influence: float
    ) -> list[float]:
        """Of each set by itself."""
        found = self._outputs(theta, prototypes, sets, influence)
        return [_error(samples.y, logits) for samples, (logits, _) in zip(sets, found, strict=True)]

    def together(self, theta: Vector, prototypes: Vector, sets: Sequence[Samples], influence: float) -> float:
        """Of all sets as one."""
        found = self._outputs(theta, prototypes, sets, influence)
        labels = np.concatenate([samples.y for samples in sets])
        return _error(labels, np.concatenate([logits for logits, _ in found]))


def _error(labels: Labels, logits: Array) -> float:
    return calibration_error(labels, probabilities(logits)) if len(labels) else math.nan
