"""What a server asks the sites of a federation besides rounds, and what they answer, as Flower messages.

Messages are of types ``query.hello``, ``query.has_bundle``, ``query.put_bundle``, ``query.revoke`` and ``query.statistics``. ``ask_...`` makes a question
and ``read_...`` takes what it needs of the other side's message; both raise ``FedaliError`` for a message that lacks it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from fedali.cohort.weights import Weights
from fedali.data.normalisation import ChannelSums
from fedali.errors import FedaliError
from fedali.v1 import federation_pb2, relay_pb2
from fedali.version import __version__
from fedali.wire.statistics import of_message, to_message
from fedali_server.flower import records

HELLO, HAS_BUNDLE, PUT_BUNDLE, REVOKE = "hello", "has_bundle", "put_bundle", "revoke"
STATISTICS = "statistics"

_T = TypeVar("_T", str, bytes, bool, int, float)


@dataclass(frozen=True)
class DeviceState:
    """A device as its site sees it.

    Args:
        device: its name.
        number: in the federation.
        online: whether it is there.
        seen_seconds: since it was heard of; negative for never.
        doing: one line.
        software: what it says it runs.
        revoked: whether its certificate is not to be trusted any more.
        train_samples, test_samples: that it says it has; 0 where it did not say.
    """

    device: str
    number: int
    online: bool
    seen_seconds: float
    doing: str
    software: str
    revoked: bool
    train_samples: int = 0
    test_samples: int = 0


@dataclass(frozen=True)
class Hello:
    """A site: who it is, what round is open there (``run`` is empty without), and its devices."""

    site: str
    federation: str
    version: str
    run: str = ""
    round: int = 0
    kind: int = 0
    seconds_left: float = 0.0
    devices: tuple[DeviceState, ...] = ()


def ask_hello(node: int) -> Message:
    """Who are you?"""
    return _question(HELLO, node, RecordDict())


def answer_hello(status: relay_pb2.SiteStatus) -> RecordDict:
    """The answer to ``ask_hello``, from what the gateway says."""
    names = [field.name for field in fields(DeviceState)]
    devices = tuple(
        DeviceState(**{name: getattr(device, name) for name in names}) for device in status.devices
    )
    hello = Hello(
        status.site,
        status.federation,
        __version__,
        status.run,
        status.round,
        status.kind,
        status.seconds_left,
        devices,
    )
    return RecordDict({HELLO: ConfigRecord({"json": json.dumps(asdict(hello))})})


def read_hello(message: Message) -> Hello:
    """What ``answer_hello`` wrote."""
    text = _take(message, HELLO, "json", str)
    try:
        facts = json.loads(text)
        devices = tuple(DeviceState(**_known(DeviceState, device)) for device in facts["devices"])
        return Hello(**{**_known(Hello, facts), "devices": devices})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedaliError(f"a site's introduction cannot be read: {error}") from None


def ask_has_bundle(node: int, sha256: bytes) -> Message:
    """Does your gateway hold this bundle?"""
    return _question(HAS_BUNDLE, node, RecordDict({HAS_BUNDLE: ConfigRecord({"sha256": sha256})}))


def read_sha256(message: Message) -> bytes:
    """What ``ask_has_bundle`` wrote."""
    return _take(message, HAS_BUNDLE, "sha256", bytes)


def answer_has_bundle(held: bool) -> RecordDict:
    """The answer to ``ask_has_bundle``."""
    return RecordDict({HAS_BUNDLE: ConfigRecord({"held": held})})


def read_has_bundle(message: Message) -> bool:
    """What ``answer_has_bundle`` wrote."""
    return _take(message, HAS_BUNDLE, "held", bool)


def ask_put_bundle(node: int, bundle: bytes) -> Message:
    """Take this bundle. It travels as an array, which Flower cuts into pieces."""
    array = Array(np.frombuffer(bundle, np.uint8))
    return _question(PUT_BUNDLE, node, RecordDict({PUT_BUNDLE: ArrayRecord({"bundle": array})}))


def read_bundle(message: Message) -> bytes:
    """What ``ask_put_bundle`` wrote."""
    try:
        array = message.content.array_records[PUT_BUNDLE]["bundle"].numpy()
    except (KeyError, ValueError) as error:
        raise FedaliError(f"the message holds no bundle: {error}") from None
    if array.dtype != np.uint8 or array.ndim != 1:
        raise FedaliError(f"the message's bundle is {array.dtype} {list(array.shape)}, not a row of bytes")
    return array.tobytes()


def ask_revoke(node: int, revoked: bytes, signature: bytes) -> Message:
    """Take this list of certificates that are not to be trusted any more, signed by the federation's key."""
    record = ConfigRecord({"list": revoked, "signature": signature})
    return _question(REVOKE, node, RecordDict({REVOKE: record}))


def read_revoke(message: Message) -> tuple[bytes, bytes]:
    """List and signature of ``ask_revoke``."""
    return _take(message, REVOKE, "list", bytes), _take(message, REVOKE, "signature", bytes)


def answer_revoke(number: int) -> RecordDict:
    """The answer to ``ask_revoke``: the number of the list that the gateway has now."""
    return RecordDict({REVOKE: ConfigRecord({"number": number})})


def read_revoked(message: Message) -> int:
    """What ``answer_revoke`` wrote."""
    return _take(message, REVOKE, "number", int)


def ask_statistics(node: int, weights: Weights) -> Message:
    """What do the training data of your devices add up to, if each counts as ``weights`` says?"""
    record = ConfigRecord({"round": 0, **records.from_weights(weights)})
    return _question(STATISTICS, node, RecordDict({STATISTICS: record}))


def read_ask_statistics(message: Message) -> Weights:
    """What ``ask_statistics`` wrote."""
    return records.read_weights(message.content.config_records.get(STATISTICS, ConfigRecord()))


def answer_statistics(sums: ChannelSums | None, reports: Sequence[Mapping[str, Any]]) -> RecordDict:
    """The answer to ``ask_statistics``: all devices' together, None where none answered, and a report of each."""
    data = b"" if sums is None else to_message(sums).SerializeToString()
    return RecordDict({STATISTICS: ConfigRecord({"sums": data}), **records.from_reports(reports)})


def read_statistics(message: Message) -> tuple[ChannelSums | None, list[dict[str, Any]]]:
    """What ``answer_statistics`` wrote; ``FedaliError`` for sums that no numbers have."""
    data = _take(message, STATISTICS, "sums", bytes)
    try:
        sums = of_message(federation_pb2.Statistics.FromString(data)) if data else None
    except DecodeError as error:
        raise FedaliError(f"a site's statistics cannot be read: {error}") from None
    return sums, records.read_reports(message.content)


def _question(action: str, node: int, content: RecordDict) -> Message:
    return Message(content, node, f"query.{action}")


def _take(message: Message, record: str, key: str, kind: type[_T]) -> _T:
    try:
        value = message.content.config_records[record][key]
    except (KeyError, ValueError):  # Flower says ValueError for a message without content
        raise FedaliError(f"the message has no {record}.{key}") from None
    if not isinstance(value, kind):
        raise FedaliError(f"{record}.{key} is {type(value).__name__}, not {kind.__name__}")
    return value


def _known(kind: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that ``kind`` has fields for; a newer site may say more."""
    return {field.name: facts[field.name] for field in fields(kind) if field.name in facts}
