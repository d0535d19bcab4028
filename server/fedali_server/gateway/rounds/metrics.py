"""What a device may report of a task: the protocol's names, and numbers that can be."""

from __future__ import annotations

from collections.abc import Mapping

from fedali.errors import WireError
from fedali_server.gateway.rounds.orders import EVALUATE, NAMES, STATISTICS, TRAIN

_SCORES = {
    TRAIN: ("train_accuracy", "validation", "validation_f1", "personalisation", "personalisation_f1"),
    EVALUATE: ("global", "global_f1"),
}
_NUMBERS = {TRAIN: ("train_loss",)}
_VERBS = {TRAIN: "train", EVALUATE: "evaluate", STATISTICS: "add up"}
METRICS = {kind: (*_NUMBERS.get(kind, ()), *_SCORES[kind]) for kind in _SCORES}  # names by kind of task


def checked(kind: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a task of ``kind`` that the protocol has; names that it has not are left out, whoever sends them.

    Raises ``WireError`` for an accuracy or F1 that is not from 0 to 1, and for a metric of another kind of task: they would spoil the
    table of everybody.
    """
    for other, names in METRICS.items():
        for name in names:
            if name in metrics and other != kind:
                raise WireError(
                    f"the update's metric {name} is of the task to {NAMES[other]}, and the task was to {_VERBS[kind]}"
                )
    scores, numbers = _SCORES.get(kind, ()), _NUMBERS.get(kind, ())
    for name in scores:
        if not 0 <= metrics.get(name, 0.0) <= 1:
            raise WireError(f"the update's metric {name} is {metrics[name]:g}; it is from 0 to 1")
    return {name: float(value) for name, value in metrics.items() if name in (*scores, *numbers)}
