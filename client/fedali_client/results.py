"""What an edge client gives back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FitReport:
    """A finished fit.

    Args:
        fit: its number, 1, 2, ...
        steps: it took in all.
        resumed_at: the step it went on from, 0 where it was not interrupted.
        samples: of its data.
        epochs: passes over them.
        loss: mean over the last epoch.
        accuracy: over the last epoch while training, 0..1: right classes, or labels; of numbers the absolute error in standard deviations.
        seconds: of this call.
    """

    fit: int
    steps: int
    resumed_at: int
    samples: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and macro-F1 (``fedali.metrics``), 0..1, of ``samples``."""

    accuracy: float
    macro_f1: float
    samples: int

    def plain(self) -> dict[str, Any]:
        """As JSON tells it."""
        return asdict(self)


@dataclass(frozen=True)
class Scores(Evaluation):
    """Of a task without classes: scores by name, see ``fedali.targets.scores``; ``units`` of quantities by name. Accuracy and macro-F1 are of
    labels, and NaN of numbers.
    """

    scores: dict[str, float]
    units: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As JSON tells it; what is not known is null."""
        known = {name: None if math.isnan(value) else value for name, value in self.scores.items()}
        return {"scores": known, "units": self.units, "samples": self.samples}


@dataclass(frozen=True, eq=False)
class Update:
    """What a client sends to a server.

    Args:
        theta: the shared part of its parameters [S], in the order of the layout; what is personal is not in it.
        prototypes: its local prototypes [L], where the method aligns them in the order of the shared ones.
        samples: it was trained on since the round began; the weight of this update.
        round: of the federation, that the shared state it started from is of.
        bundle: digest of the bundle.
    """

    theta: npt.NDArray[np.float32]
    prototypes: npt.NDArray[np.float32]
    samples: int
    round: int
    bundle: str


@dataclass(frozen=True)
class Status:
    """Where a client stands.

    Args:
        name: of the bundle.
        bundle: its digest.
        mode: ``full`` or ``head``.
        round: of the federation, that the shared state is of.
        fits: begun.
        fit_step: steps done in the latest.
        fit_steps: it takes; it is under way where ``fit_step`` is smaller.
        steps: of all fits.
        samples: seen in all steps.
        last_loss: of the latest complete epoch.
        last_accuracy: of the latest complete epoch, while training.
    """

    name: str
    bundle: str
    mode: str
    round: int
    fits: int
    fit_step: int
    fit_steps: int
    steps: int
    samples: int
    last_loss: float
    last_accuracy: float
