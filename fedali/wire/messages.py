"""What devices and gateways say to each other: numbers as bytes, and strictly back.

The messages are those of ``proto/fedali/v1/federation.proto``; ``docs/wire.md`` tells them bit by bit. Whatever comes
from the other side passes one of the ``decode`` functions here, which answer with sound numbers or with ``WireError``
and never allocate more than the receiver expected.

>>> sent, lost = encode(np.array([0.5, -1.0, 0.3], np.float32), Encoding.INT8)
>>> len(sent.data), decode(sent, 3) + lost
(3, array([ 0.5, -1. ,  0.3], dtype=float32))
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from fedali.errors import WireError
from fedali.v1 import federation_pb2

__all__ = [
    "ClientUpdate",
    "Encoding",
    "WireError",
    "check_run_name",
    "client_options",
    "decode",
    "decode_state",
    "decode_update",
    "encode",
    "encode_state",
    "encode_update",
    "largest_state",
    "largest_update",
    "relay_options",
    "server_options",
    "task_id",
]

Vector = npt.NDArray[np.float32]
Options = list[tuple[str, int | str]]
_Kind = TypeVar("_Kind", bound=Message)

PROTOCOL = 1  # version of the device protocol
CHUNK = 64 << 10  # bytes of a download's or upload's chunk: gRPC keeps room for about one at each connection
LARGEST_CHUNK = 1 << 20  # bytes; more is refused
LONGEST_WAIT = 60.0  # seconds of a long poll
LARGEST_SAMPLES = 10**9  # of one update
LARGEST_STEP = 1e6  # norms of a round's theta that an update may be from it
LARGEST_METRICS = 32  # of one update
LARGEST_METRIC_NAME = 48  # characters
LARGEST_SOFTWARE = 64  # characters
LARGEST_REASON = 200  # characters
LARGEST_RELAYED = 1 << 30  # bytes of a message between a node and its gateway; a bundle has at most 512 MiB
BLOCK = 256  # numbers that share a scale in int8

RUN_NAME = re.compile(r"[0-9a-z-]{1,64}")
TASK_ID = re.compile(r"[0-9a-f]{32}")
METRIC_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LARGEST_METRIC_NAME - 1}}}")

_DIGEST = 32  # bytes of a SHA-256
_BESIDE_NUMBERS = (
    16 << 10
)  # bytes of an update or a state that are no tensor's data; metrics need 2.3 KiB at most
_LARGEST_HALF = np.float32(65504)  # the largest finite number of float16


class Encoding(IntEnum):
    """How a tensor's numbers are written, as in ``federation.proto``."""

    FLOAT32 = 1
    FLOAT16 = 2
    INT8 = 3


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


def encode(
    values: Vector, encoding: Encoding, residual: Vector | None = None
) -> tuple[federation_pb2.Tensor, Vector]:
    """A tensor of ``values + residual`` [n], and what the encoding lost of it [n], to be given as the next ``residual``.

    With this error feedback the sum of all that is decoded stays within one rounding of the sum of all ``values``,
    however many rounds. Numbers too large for float16 are sent as its largest, and the rest is owed too.

    Raises ``WireError`` for numbers that are not finite.
    """
    wanted = _vector(values, "the tensor")
    if residual is not None:
        with np.errstate(over="ignore"):
            wanted = wanted + _vector(residual, "what an earlier round lost", wanted.size)
    if not np.isfinite(wanted).all():
        raise WireError("the tensor is not sent: it has numbers that are not finite; did training diverge?")
    if encoding is Encoding.FLOAT32:
        data, scales, sent = wanted.astype("<f4").tobytes(), (), wanted
    elif encoding is Encoding.FLOAT16:
        halves = np.clip(wanted, -_LARGEST_HALF, _LARGEST_HALF).astype("<f2")
        data, scales, sent = halves.tobytes(), (), halves.astype(np.float32)
    else:
        bytes_, scale = _to_int8(wanted)
        data, scales, sent = bytes_.tobytes(), scale.tolist(), _from_int8(bytes_, scale)
    tensor = federation_pb2.Tensor(encoding=int(encoding), size=wanted.size, data=data, scales=scales)  # type: ignore[arg-type]
    return tensor, wanted - sent


def decode(tensor: federation_pb2.Tensor, size: int) -> Vector:
    """The numbers [size] of a tensor, float32.

    Raises ``WireError`` unless there are exactly ``size`` finite numbers, written as the tensor says.
    """
    if tensor.size != size:
        raise WireError(f"the tensor has {tensor.size} numbers, not {size}")
    number = int(tensor.encoding)  # any, whatever its type says
    if number not in list(Encoding):
        raise WireError(f"the tensor's encoding is {number}; known: {_KNOWN}")
    encoding = Encoding(number)
    data = tensor.data  # each look at a field of bytes copies it
    width, scales = _DTYPES[encoding].itemsize, -(-size // BLOCK) if encoding is Encoding.INT8 else 0
    if len(data) != size * width:
        raise WireError(f"the tensor has {len(data)} bytes for {size} numbers of {width}")
    if len(tensor.scales) != scales:
        raise WireError(f"the tensor has {len(tensor.scales)} scales, not {scales}")
    if encoding is Encoding.INT8:
        numbers = _decode_int8(data, np.array(tensor.scales, np.float32))
    else:
        numbers = np.frombuffer(data, _DTYPES[encoding]).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise WireError("the tensor has numbers that are not finite")
    return numbers


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
    theta = _vector(update.theta, "the update's theta")
    prototypes = _vector(np.empty(0) if update.prototypes is None else update.prototypes, "the prototypes")
    if encoding is not Encoding.FLOAT32:
        if reference_theta is None:
            raise WireError(f"{encoding.name.lower()} needs the task's theta: differences to it are sent")
        theta = theta - _vector(reference_theta, "the task's theta", theta.size)
        message.delta = True
    owed: tuple[Vector | None, Vector | None] = (None, None)
    if residual is not None:
        residual = _vector(residual, "what an earlier round lost", theta.size + prototypes.size)
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
                theta += _vector(reference_theta, "the task's theta", theta.size)
            if not np.isfinite(theta).all():
                raise WireError("the update's theta is not finite where it is added to the task's")
    return ClientUpdate(
        message.task, message.bundle, message.samples, theta, prototypes, dict(message.metrics)
    )


def largest_update(sizes: tuple[int, int]) -> int:
    """Bytes that an update with (S, L) numbers may have in any encoding."""
    return 4 * sum(sizes) + _BESIDE_NUMBERS


def largest_state(sizes: tuple[int, int]) -> int:
    """Bytes that a shared state with (S, L) numbers may have."""
    return 4 * sum(sizes) + _BESIDE_NUMBERS


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


def server_options() -> Options:
    """Options of gRPC for a gateway: small messages, one process a port, connections that died are noticed in 90 seconds."""
    return [
        *_messages(LARGEST_CHUNK + _BESIDE_NUMBERS),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what a server tolerates of its clients
        ("grpc.http2.max_pings_without_data", 0),
    ]


def client_options(expected_name: str | None = None) -> Options:
    """Options of gRPC for a device: they go with ``server_options``, and reconnect within 10 seconds.

    ``expected_name`` is the name that the gateway's certificate has to bear; the address's own when None.
    """
    return [
        *_messages(LARGEST_CHUNK + _BESIDE_NUMBERS),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 15_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),  # a device tries again by itself, from what the gateway holds
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.min_reconnect_backoff_ms", 10_000),  # for an attempt to connect
        ("grpc.max_reconnect_backoff_ms", 10_000),
        *([] if expected_name is None else [("grpc.ssl_target_name_override", expected_name)]),
    ]


def relay_options() -> Options:
    """Options of gRPC for both ends of a site's Unix socket: messages hold bundles and whole models."""
    return [
        *_messages(LARGEST_RELAYED),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def _messages(largest: int) -> Options:
    return [("grpc.max_send_message_length", largest), ("grpc.max_receive_message_length", largest)]


_DTYPES: dict[Encoding, np.dtype[Any]] = {
    Encoding.FLOAT32: np.dtype("<f4"),
    Encoding.FLOAT16: np.dtype("<f2"),
    Encoding.INT8: np.dtype("i1"),
}
_KNOWN = ", ".join(f"{encoding.value} ({encoding.name.lower()})" for encoding in Encoding)


def _to_int8(values: Vector) -> tuple[npt.NDArray[np.int8], Vector]:
    """``values`` [n] as -127 to 127 [n] times a scale for each block."""
    blocks = np.zeros((-(-values.size // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values
    scales = np.abs(blocks).max(axis=1) / np.float32(127)
    steps = np.rint(blocks / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(steps, -127, 127).astype(np.int8).reshape(-1)[: values.size], scales


def _from_int8(steps: npt.NDArray[np.int8], scales: Vector) -> Vector:
    return steps.astype(np.float32) * np.repeat(scales, BLOCK)[: steps.size]


def _decode_int8(data: bytes, scales: Vector) -> Vector:
    steps = np.frombuffer(data, np.int8)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise WireError("the tensor has scales that are negative or not finite")
    if (steps == -128).any():
        raise WireError("the tensor has the byte -128; int8 goes from -127 to 127")
    with np.errstate(over="ignore"):
        return _from_int8(steps, scales)


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


def _vector(values: npt.NDArray[np.floating], what: str, size: int | None = None) -> Vector:
    """``values`` as float32 [size]; ``WireError`` for another shape."""
    vector = np.ascontiguousarray(values, np.float32)
    if vector.ndim != 1 or (size is not None and vector.size != size):
        raise WireError(f"{what} has the shape {list(vector.shape)}, not [{'n' if size is None else size}]")
    return vector
