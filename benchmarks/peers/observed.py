"""What is kept of a run, whoever's: models after the first and the last round, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedali.engines.base import Engine, Query
from fedali_simulations.setup import Setup

Models = list[npt.NDArray[np.floating]]


EARLY = (1, 3)  # rounds: what has no past yet, and what has one, before training enlarges rounding


@dataclass
class Observed:
    """Each client's sent model [M], and the one it answers with [M], by the round that they are of: of ``EARLY``, and the last."""

    after: dict[int, tuple[Models, Models]] = field(default_factory=dict)

    @property
    def last(self) -> tuple[Models, Models]:
        """After the last round."""
        return self.after[max(self.after)]

    @staticmethod
    def wanted(round_: int, rounds: int) -> bool:
        """Whether models are looked at after a round."""
        return round_ in (*EARLY, rounds)

    def differences(self, other: Observed) -> dict[str, list[float]]:
        """By the round: the largest difference of a parameter over all clients, of what is sent and of what answers."""
        return {
            str(round_): [difference(*pair) for pair in zip(seen, other.after[round_], strict=True)]
            for round_, seen in self.after.items()
        }


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
