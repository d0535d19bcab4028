"""What a device may report of a task: the protocol's names, and numbers that can be."""

from __future__ import annotations

from collections.abc import Mapping

from fedali.errors import WireError
from fedali_server.gateway.rounds.orders import EVALUATE, NAMES, STATISTICS, TRAIN

_VERBS = {TRAIN: "train", EVALUATE: "evaluate", STATISTICS: "add up"}
_NUMBERS = ("train_loss",)  # all others are from 0 to 1
_ANSWERS = ("validation", "validation_f1", "personalisation", "personalisation_f1")
_OWN = {TRAIN: ("train_loss", "train_accuracy"), EVALUATE: ("global", "global_f1")}


def names_of(kind: int, *, late: bool = False) -> tuple[str, ...]:
    """Names of metrics that belong to a task of ``kind``.

    ``late``: of a bundle whose clients know what they answer once they have heard of the model that the round made; they say how good
    that is when they evaluate, others when they have trained.
    """
    answered = EVALUATE if late else TRAIN
    return (*_OWN.get(kind, ()), *(_ANSWERS if kind == answered else ()))


def checked(kind: int, metrics: Mapping[str, float], *, late: bool = False) -> dict[str, float]:
    """The metrics of a task of ``kind`` that the protocol has; names that it has not are left out, whoever sends them.

    Raises ``WireError`` for an accuracy or F1 that is not from 0 to 1, and for a metric of another kind of task: they would spoil the
    table of everybody.
    """
    for other in _OWN:
        for name in names_of(other, late=late):
            if name in metrics and other != kind:
                raise WireError(
                    f"the update's metric {name} is of the task to {NAMES[other]}, and the task was to {_VERBS[kind]}"
                )
    names = names_of(kind, late=late)
    for name in names:
        if name not in _NUMBERS and not 0 <= metrics.get(name, 0.0) <= 1:
            raise WireError(f"the update's metric {name} is {metrics[name]:g}; it is from 0 to 1")
    return {name: float(value) for name, value in metrics.items() if name in names}
