"""What devices and gateways say to each other: numbers as bytes, and strictly back.

The messages are those of ``proto/fedali/v1/federation.proto``; ``docs/wire.md`` tells them bit by bit. Whatever comes
from the other side passes one of the ``decode`` functions here, which answer with sound numbers or with ``WireError``
and never allocate more than the receiver expected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from fedali.errors import WireError
from fedali.v1 import federation_pb2
from fedali.wire.options import BESIDE_NUMBERS
from fedali.wire.tensors import Encoding, Vector, as_vector, decode, encode

_Kind = TypeVar("_Kind", bound=Message)

PROTOCOL = 1  # version of the device protocol
CHUNK = 64 << 10  # bytes of a download's or upload's chunk: gRPC keeps room for about one at each connection
LONGEST_WAIT = 60.0  # seconds of a long poll
LARGEST_SAMPLES = 10**9  # of one update
LARGEST_STEP = 1e6  # norms of a round's theta that an update may be from it
LARGEST_METRICS = 32  # of one update
LARGEST_METRIC_NAME = 48  # characters
LARGEST_SOFTWARE = 64  # characters
LARGEST_REASON = 200  # characters

RUN_NAME = re.compile(r"[0-9a-z-]{1,64}")
TASK_ID = re.compile(r"[0-9a-f]{32}")
METRIC_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LARGEST_METRIC_NAME - 1}}}")

_DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """What a device answers a task with.

    Args:
        task: id of the task, see ``task_id``.
        bundle: SHA-256 of the bundle's file, 32 bytes.
        samples: trained on; of an evaluation, tested on. At least 1.
        theta: [S] the shared part of the trained parameters; None for an evaluation.
        prototypes: [L] the trained local prototypes; None for an evaluation.
        metrics: finite numbers by name.
    """

    task: str
    bundle: bytes
    samples: int
    theta: Vector | None = None
    prototypes: Vector | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def encode_state(theta: Vector, prototypes: Vector) -> bytes:
    """What a server sends for a round: the shared part of the parameters [S] and the global prototypes [L]."""
    return federation_pb2.SharedState(
        theta=encode(theta, Encoding.FLOAT32)[0], prototypes=encode(prototypes, Encoding.FLOAT32)[0]
    ).SerializeToString(deterministic=True)


def decode_state(data: bytes, sizes: tuple[int, int]) -> tuple[Vector, Vector]:
    """What ``encode_state`` wrote: theta [S] and prototypes [L] for ``sizes`` (S, L). Raises ``WireError``."""
    state = parse(federation_pb2.SharedState, data, largest_state(sizes), "the shared state")
    return (
        _named(lambda: decode(state.theta, sizes[0]), "the shared state's theta"),
        _named(lambda: decode(state.prototypes, sizes[1]), "the shared state's prototypes"),
    )


def encode_update(
    update: ClientUpdate,
    reference_theta: Vector | None = None,
    encoding: Encoding = Encoding.FLOAT32,
    residual: Vector | None = None,
) -> tuple[bytes, Vector | None]:
    """A serialised ``Update``, and what its encoding lost: theta's and the prototypes' together [S + L].

    Args:
        update: of a training, or of an evaluation: it has no tensors then, and nothing is lost.
        reference_theta: [S] of the task's state. float16 and int8 send theta as the difference to it, float32 sends it
            as it is, bit by bit.
        encoding: that the task asked for.
        residual: what this function returned in the last round of the same run; None in the first. It is sent too.

    Returns None for what was lost where nothing can be: in float32 and in evaluations.
    Raises ``WireError`` for what ``decode_update`` would refuse.
    """
    message = federation_pb2.Update(task=update.task, bundle=update.bundle, metrics=update.metrics)
    if not 1 <= update.samples <= LARGEST_SAMPLES:
        raise WireError(f"the update is of {update.samples} samples; it has to be 1 to {LARGEST_SAMPLES}")
    message.samples = update.samples
    check_header(message)
    if update.theta is None:
        if update.prototypes is not None:
            raise WireError("the update has prototypes and no theta")
        return message.SerializeToString(deterministic=True), None
    theta = as_vector(update.theta, "the update's theta")
    prototypes = as_vector(np.empty(0) if update.prototypes is None else update.prototypes, "the prototypes")
    if encoding is not Encoding.FLOAT32:
        if reference_theta is None:
            raise WireError(f"{encoding.name.lower()} needs the task's theta: differences to it are sent")
        theta = theta - as_vector(reference_theta, "the task's theta", theta.size)
        message.delta = True
    owed: tuple[Vector | None, Vector | None] = (None, None)
    if residual is not None:
        residual = as_vector(residual, "what an earlier round lost", theta.size + prototypes.size)
        owed = residual[: theta.size], residual[theta.size :]
    tensor, lost_theta = encode(theta, encoding, owed[0])
    message.theta.CopyFrom(tensor)
    tensor, lost_prototypes = encode(prototypes, encoding, owed[1])
    message.prototypes.CopyFrom(tensor)
    lost = None if encoding is Encoding.FLOAT32 else np.concatenate([lost_theta, lost_prototypes])
    return message.SerializeToString(deterministic=True), lost


def decode_update(
    data: bytes,
    sizes: tuple[int, int],
    reference_theta: Vector | None = None,
    *,
    largest: int | None = None,
) -> ClientUpdate:
    """What ``encode_update`` wrote, or any other device.

    Args:
        data: a serialised ``Update``.
        sizes: (S, L) of the shared part of the parameters and of the prototypes.
        reference_theta: [S] of the task's state, for differences to it.
        largest: bytes; ``largest_update(sizes)`` when None.

    Raises ``WireError`` for anything that cannot be used: sizes, names, numbers that are not finite. Whether the task, the
    bundle and the norm are the right ones is for the caller to see; ``theta`` is None for an evaluation.
    """
    message = parse(
        federation_pb2.Update, data, largest_update(sizes) if largest is None else largest, "the update"
    )
    check_header(message)
    theta = prototypes = None
    if message.HasField("theta") != message.HasField("prototypes"):
        raise WireError("the update has one of theta and prototypes; a training has both, an evaluation none")
    if message.HasField("theta"):
        theta = _named(lambda: decode(message.theta, sizes[0]), "the update's theta")
        prototypes = _named(lambda: decode(message.prototypes, sizes[1]), "the update's prototypes")
        if message.delta:
            if reference_theta is None:
                raise WireError("the update is a difference, and there is no theta to add it to")
            with np.errstate(over="ignore"):
                theta += as_vector(reference_theta, "the task's theta", theta.size)
            if not np.isfinite(theta).all():
                raise WireError("the update's theta is not finite where it is added to the task's")
    return ClientUpdate(
        message.task, message.bundle, message.samples, theta, prototypes, dict(message.metrics)
    )


def largest_update(sizes: tuple[int, int]) -> int:
    """Bytes that an update with (S, L) numbers may have in any encoding."""
    return 4 * sum(sizes) + BESIDE_NUMBERS


def largest_state(sizes: tuple[int, int]) -> int:
    """Bytes that a shared state with (S, L) numbers may have."""
    return 4 * sum(sizes) + BESIDE_NUMBERS


def task_id(run: str, round_: int, kind: int) -> str:
    """The id of a task, 32 hex digits: the same for the same run, round (1, 2, ...) and ``TaskKind``.

    >>> task_id("first", 1, 1)
    '71c6a6f189b05b5e8f22581728724877'
    """
    return hashlib.sha256(f"{run}\n{round_}\n{int(kind)}".encode()).digest()[:16].hex()


def check_run_name(run: str) -> str:
    """``run`` itself; ``WireError`` unless it can name a run."""
    if not RUN_NAME.fullmatch(run):
        raise WireError(f"{run[:80]!r} cannot name a run: 1 to 64 of the characters a-z, 0-9 and -")
    return run


def check_header(message: federation_pb2.Update) -> None:
    """All of an update but its tensors."""
    if not TASK_ID.fullmatch(message.task):
        raise WireError("the update's task is not 32 lower-case hex digits")
    if len(message.bundle) != _DIGEST:
        raise WireError(f"the update's bundle is {len(message.bundle)} bytes long, no SHA-256")
    if not 1 <= message.samples <= LARGEST_SAMPLES:
        raise WireError(
            f"the update is of {message.samples} samples; it has to be 1 to {LARGEST_SAMPLES}, and a device "
            "without any declines"
        )
    if len(message.metrics) > LARGEST_METRICS:
        raise WireError(f"the update has {len(message.metrics)} metrics, more than {LARGEST_METRICS}")
    for name, value in message.metrics.items():
        if not METRIC_NAME.fullmatch(name):
            raise WireError(
                f"the update's metric {name[:80]!r} is not named by a-z, 0-9 and _, "
                f"at most {LARGEST_METRIC_NAME} of them"
            )
        if not np.isfinite(value):
            raise WireError(f"the update's metric {name} is {value}, not a finite number")


def parse(kind: type[_Kind], data: bytes, largest: int, what: str) -> _Kind:
    """A message of at most ``largest`` bytes; ``WireError`` that names it as ``what``."""
    if len(data) > largest:
        raise WireError(f"{what} has {len(data)} bytes; at most {largest} are taken")
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError):  # the second from protobuf's implementation in Python
        raise WireError(f"{what} cannot be read: it is not the message it should be") from None
    return message


def _named(decoded: Callable[[], Vector], what: str) -> Vector:
    """Say of which tensor an error is."""
    try:
        return decoded()
    except WireError as error:
        raise WireError(str(error).replace("the tensor", what, 1)) from None
