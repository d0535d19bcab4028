"""How well a gate knows whose a sample was, on test data of which that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.engines.base import Labels
from fedali.metrics import area_under_curve
from fedali.targets import Targets
from fedali.tasks import Task

_EVEN = 0.5  # a weight at which both answers count alike


@dataclass(frozen=True, eq=False)
class Gated:
    """What went into a client's answer on some samples.

    Args:
        weights: of its own answer, 0..1 [n].
        own: what it says itself: classes [n], or targets [n, T].
        shared: what the shared model says.
    """

    weights: npt.NDArray[np.floating[Any]]
    own: Labels
    shared: Labels


def joined(parts: Sequence[Gated]) -> Gated:
    """Of several sets of samples as one, in their order."""
    names = [field.name for field in fields(Gated)]
    return Gated(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def gate_scores(
    gated: Gated, labels: Labels, mine: npt.NDArray[np.bool_], task: Task, targets: Targets
) -> dict[str, float]:
    """Numbers of a client's gate on samples with ``labels`` [n], of which some are its own (``mine`` [n]); the first three 0..1.

    * ``gate_auc``: how well the weights tell own samples from others', see ``fedali.metrics.area_under_curve``;
    * ``gate_agreement``: the share of samples that it sends right: own ones to the client's answer, others' to the shared model's;
    * ``gate_own``: the same of own samples alone, of which there are few;
    * ``generalisation_perfect``: the accuracy, or the task's main score, of a gate that knows whose each sample is.
    """
    right = np.where(mine, gated.weights > _EVEN, gated.weights < _EVEN)
    perfect = np.where(mine.reshape(-1, *[1] * (labels.ndim - 1)), gated.own, gated.shared)
    return {
        "gate_auc": area_under_curve(gated.weights, mine),
        "gate_agreement": float(right.mean()),
        "gate_own": float(right[mine].mean()),
        "generalisation_perfect": float(task.scores("", labels, perfect, targets)[""]),
    }
