"""What is kept of a run, whoever's: models after the first and the last round, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedali.engines.base import Engine, Query
from fedali_simulations.setup import Setup

Models = list[npt.NDArray[np.floating]]


@dataclass
class Observed:
    """Each client's sent model [M], and the one it answers with [M]; after the first round, and after the last."""

    first: tuple[Models, Models] = field(default=([], []))
    last: tuple[Models, Models] = field(default=([], []))

    def add(self, *, first: bool, sent: Models, answers: Models) -> None:
        """What is seen after a round; of a run of one round, the first is the last."""
        if first:
            self.first = sent, answers
        self.last = sent, answers


def difference(one: Models, other: Models) -> float:
    """The largest difference of a parameter, over all clients."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def accuracies(setup: Setup, engine: Engine, answers: Models) -> tuple[float, float]:
    """Means over clients: accuracy on their own test data, and on everyone's."""
    tests = tuple(setup.sites[0].cohort.test)
    own, everyone = [], []
    none = np.zeros(0, np.float32)
    for client, said in enumerate(engine.predict(Query(theta, none, tests, 0.0) for theta in answers)):
        right = [answer == samples.y for answer, samples in zip(said, tests, strict=True)]
        own.append(right[client].mean())
        everyone.append(np.concatenate(right).mean())
    return float(np.mean(own)), float(np.mean(everyone))
