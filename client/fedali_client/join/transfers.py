"""Sending an update, from what the gateway already has of it."""

from __future__ import annotations

import hashlib

from fedali.v1 import federation_pb2
from fedali_client.join.connection import GatewayConnection
from fedali_client.join.journal import COUNTED
from fedali_client.join.signals import AwayError

_VERDICTS = {
    federation_pb2.VERDICT_COUNTED: COUNTED,
    federation_pb2.VERDICT_LATE: "late",
    federation_pb2.VERDICT_REFUSED: "refused",
}
_ATTEMPTS = 4  # without progress


def send(gateway: GatewayConnection, task: str, update: bytes) -> tuple[str, str]:
    """Send an update until the gateway decides: ``counted``, ``late`` or ``refused``, and why.

    Raises ``AwayError`` when the connection breaks; what the gateway has by then is not sent again.
    """
    sha256 = hashlib.sha256(update).digest()
    offset = gateway.upload_offset(task, sha256)
    attempts = 0
    while attempts < _ATTEMPTS:
        reply = gateway.upload(task, sha256, update, min(offset, len(update)))
        if reply.verdict in _VERDICTS:
            return _VERDICTS[reply.verdict], reply.reason
        if reply.verdict != federation_pb2.VERDICT_INCOMPLETE:
            break
        attempts = 0 if reply.received > offset else attempts + 1
        offset = reply.received
    raise AwayError("the gateway does not take this device's update to its end", heard=True)
