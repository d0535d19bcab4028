"""Testing a baseline as methods are tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.cohort.site import Cohort
from fedali.engines.base import Labels, Samples
from fedali.metrics import calibration_error

Probabilities = npt.NDArray[np.floating[Any]]
Answer = Callable[[int, Samples], Probabilities]
"""What the model of a client, by its index, says of samples: [n, classes]."""

_Row = dict[str, float]


def evaluated(
    cohort: Cohort, clients: Sequence[int], answer: Answer, *, everyone: bool, shared: bool
) -> dict[str, list[float]]:
    """Metrics of ``clients`` by column, a row each; ``client`` is the index.

    Args:
        cohort: data of all clients.
        clients: those whose data are trained and tested on.
        answer: what is tested.
        everyone: whether generalisation is measured in this round, and with it calibration and, where it is ``shared``, the global model.
        shared: whether all clients have the same model.
    """
    tests = [cohort.test[client] for client in clients]
    labels = np.concatenate([samples.y for samples in tests])
    rows = []
    for client, own in zip(clients, tests, strict=True):
        mine = answer(client, own)
        validation = cohort.validation[client]
        row: _Row = {"client": client, "samples": len(cohort.train[client]), "test_samples": len(own)}
        row |= scores(cohort, "validation", validation.y, answer(client, validation))
        row |= scores(cohort, "personalisation", own.y, mine)
        if everyone:
            said = np.concatenate([answer(client, samples) for samples in tests])
            row |= scores(cohort, "generalisation", labels, said)
            if cohort.task.kind == "classes":
                row["personalisation_ece"] = calibration_error(own.y, mine)
                row["generalisation_ece"] = calibration_error(labels, said)
            if shared:
                row |= scores(cohort, "global", own.y, mine)
                if cohort.task.kind == "classes":
                    row["global_ece"] = row["personalisation_ece"]
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def remembered(answer: Callable[[Samples], Probabilities]) -> Answer:
    """The answer of one model that all clients have, asked once for each set of samples."""
    known: dict[int, tuple[Samples, Probabilities]] = {}  # by the identity of samples, which are kept for it

    def ask(client: int, samples: Samples) -> Probabilities:
        if id(samples) not in known:
            known[id(samples)] = samples, answer(samples)
        return known[id(samples)][1]

    return ask


def scores(cohort: Cohort, name: str, labels: Labels, said: Probabilities) -> _Row:
    """Metrics of what was said of samples, named after ``name``."""
    return dict(cohort.task.scores(name, labels, cohort.task.decide(said), cohort.targets))
