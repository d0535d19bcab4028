"""Orders of rounds: what is sound, what makes two of them the same, and how they are kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedali.cohort.weights import Weights
from fedali.errors import WireError
from fedali.methods import SharedState
from fedali.v1 import federation_pb2, relay_pb2
from fedali.wire.messages import LARGEST_STEP, check_run_name, task_id
from fedali.wire.tensors import Encoding
from fedali_server.gateway.rounds.bundles import RoundModel

TRAIN, EVALUATE = int(federation_pb2.TASK_KIND_TRAIN), int(federation_pb2.TASK_KIND_EVALUATE)
STATISTICS = int(federation_pb2.TASK_KIND_STATISTICS)
NAMES = {TRAIN: "train", EVALUATE: "evaluate", STATISTICS: "statistics"}
DOING = {TRAIN: "training", EVALUATE: "evaluating", STATISTICS: "adding up"}
_LONGEST = 7 * 86400.0  # seconds of a round
NOT_CONTENT = ("seconds", "quorum", "grace_seconds")


@dataclass(frozen=True, order=True)
class RoundKey:
    """What names a round."""

    run: str
    round: int
    kind: int

    @classmethod
    def of(cls, order: relay_pb2.RoundOrder) -> RoundKey:
        """The name of the round that ``order`` is for."""
        return cls(order.run, order.round, order.kind)

    @property
    def task(self) -> str:
        """The id of the devices' task."""
        return task_id(self.run, self.round, self.kind)

    @property
    def folder(self) -> str:
        """Where its files are, below the folder of rounds."""
        return f"{self.run}/{self.round}-{NAMES[self.kind]}"

    def __str__(self) -> str:
        return f"round {self.round} of {self.run} ({NAMES[self.kind]})"


def check_order(order: relay_pb2.RoundOrder) -> None:
    """Raise ``WireError`` for an order that no bundle could make sense of."""
    check_run_name(order.run)
    numbers: list[tuple[str, Any, float, float]] = [
        (
            "round",
            order.round,
            0 if order.kind == STATISTICS else 1,
            0 if order.kind == STATISTICS else 2**31,
        ),
        ("influence", order.influence, 0, 1),
        ("seconds", order.seconds, 0, _LONGEST),
        ("quorum", order.quorum, 0, 1),
        ("grace_seconds", order.grace_seconds, 0, _LONGEST),
        ("largest_step", order.largest_step, 0, LARGEST_STEP),
        ("largest_samples", order.largest_samples, 0, 2**53),
        ("largest_weight", order.largest_weight, 0, 2**53),
        ("epochs", order.epochs, 1 if order.kind == TRAIN else 0, 10**6),
    ]
    for name, value, least, most in numbers:
        if not (math.isfinite(value) and least <= value <= most):
            raise WireError(f"the order's {name} is {value}; it has to be {least} to {most:g}")
    if order.kind not in NAMES:
        known = ", ".join(f"{kind} ({name})" for kind, name in NAMES.items())
        raise WireError(f"the order's kind is {order.kind}; known: {known}")
    if order.kind == TRAIN and order.encoding not in list(Encoding):
        raise WireError(
            f"the order's encoding is {order.encoding}; it has to be one of {[int(e) for e in Encoding]}"
        )


def content(order: relay_pb2.RoundOrder) -> bytes:
    """SHA-256 of what devices see of an order: two orders that differ here are two rounds."""
    seen = relay_pb2.RoundOrder()
    seen.CopyFrom(order)
    for name in NOT_CONTENT:
        seen.ClearField(name)
    return hashlib.sha256(seen.SerializeToString(deterministic=True)).digest()


def shared_state(order: relay_pb2.RoundOrder, model: RoundModel) -> SharedState:
    """The state that the round starts from; zeros for statistics, which have none.

    Raises ``WireError`` unless it is ``model``'s, and finite.
    """
    vectors = []
    for name, size in (
        ("theta", model.layouts.parameters.size),
        ("prototypes", model.layouts.prototypes.size),
    ):
        data: bytes = getattr(order, name)
        if order.kind == STATISTICS and not data:
            data = bytes(4 * size)
        if len(data) != 4 * size:
            raise WireError(
                f"the order's {name} has {len(data)} bytes; the bundle's model has {size} float32"
            )
        vector = np.frombuffer(data, "<f4")
        if not np.isfinite(vector).all():
            raise WireError(f"the order's {name} has numbers that are not finite")
        vectors.append(vector)
    return SharedState(*vectors)


def weights_of(order: relay_pb2.RoundOrder) -> Weights:
    """What clients may weigh."""
    return Weights(order.largest_weight, dict(order.largest_weights))


def due_devices(order: relay_pb2.RoundOrder, known: Mapping[int, str]) -> dict[int, str]:
    """Names by number of the devices that the round waits for. Raises ``WireError`` for one that the site has not."""
    for number in order.devices:
        if number not in known:
            raise WireError(f"the order is for device {number}, which this site has not")
    return {number: known[number] for number in sorted(order.devices or known)}
