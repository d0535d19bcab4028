"""A gateway as a device sees it: calls with a deadline, and failures as what they mean.

``AwayError``: try again later. ``GoneError``: the gateway does not have it any more. ``KitError``: it refuses this device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

import grpc

from fedali.errors import KitError
from fedali.support.files import reporting
from fedali.v1 import federation_pb2, federation_pb2_grpc
from fedali.wire.kit import DeviceKit
from fedali.wire.messages import CHUNK, PROTOCOL
from fedali.wire.options import LARGEST_CHUNK, client_options
from fedali_client.join.signals import AwayError, GoneError

_ANSWER = 20.0  # seconds for a short call
_SLOWEST = 8 << 10  # bytes a second of a transfer that is still worth waiting for
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_Answer = TypeVar("_Answer")


class GatewayConnection:
    """A connection to the gateway of ``kit``; ``close`` it, or use it in a ``with`` block.

    ``sent`` and ``received`` are bytes of updates and artifacts over it.
    """

    def __init__(self, kit: DeviceKit) -> None:
        self.address = kit.gateway
        self.sent = self.received = 0
        self._chunk, self._name = CHUNK, kit.gateway_name
        with reporting(kit.folder, "read"):
            self._credentials = grpc.ssl_channel_credentials(
                kit.authority.read_bytes(), kit.key.read_bytes(), kit.certificate.read_bytes()
            )
        self._connect()

    def _moved(self, size: int) -> None:
        """Connect anew after a large transfer: both ends keep buffers for it as long as the connection is there."""
        if size > self._chunk:
            self.close()
            self._connect()

    def _connect(self) -> None:
        options = [*client_options(self._name), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.secure_channel(self.address, self._credentials, options)
        self._stub = federation_pb2_grpc.FederationStub(self._channel)

    def enrol(self, software: str, train: int, test: int, bundle: bytes) -> federation_pb2.EnrolReply:
        """Introduce this device, which has ``train`` and ``test`` samples and the bundle of digest ``bundle``."""
        request = federation_pb2.EnrolRequest(
            protocol=PROTOCOL, software=software, train_samples=train, test_samples=test, bundle=bundle
        )
        reply = self._call(lambda: self._stub.Enrol(request, timeout=_ANSWER))
        self._chunk = min(reply.chunk_bytes or CHUNK, LARGEST_CHUNK)
        return reply

    def next_task(self, wait: float) -> federation_pb2.Task | None:
        """The next task; None when there was none for ``wait`` seconds."""
        request = federation_pb2.NextTaskRequest(wait_seconds=wait)
        reply = self._call(lambda: self._stub.NextTask(request, timeout=wait + _ANSWER))
        return reply.task if reply.HasField("task") else None

    def download(self, artifact: federation_pb2.Artifact, offset: int) -> Iterator[bytes]:
        """The bytes of an artifact from ``offset`` on; no other call may be under way when they end."""
        request = federation_pb2.DownloadRequest(sha256=artifact.sha256, offset=offset)
        timeout = _ANSWER + (artifact.size - offset) / _SLOWEST
        stream, before = self._call(lambda: self._stub.Download(request, timeout=timeout)), self.received
        try:
            while (chunk := self._call(lambda: next(stream, None))) is not None:
                self.received += len(chunk.data)
                yield chunk.data
        finally:
            stream.cancel()
            self._moved(self.received - before)

    def upload_offset(self, task: str, sha256: bytes) -> int:
        """How much of an update the gateway has."""
        request = federation_pb2.UploadOffsetRequest(task=task, sha256=sha256)
        return int(self._call(lambda: self._stub.UploadOffset(request, timeout=_ANSWER)).received)

    def upload(self, task: str, sha256: bytes, update: bytes, offset: int) -> federation_pb2.UploadReply:
        """Send an update from ``offset`` on, when it is this device's turn; no other call may be under way then."""
        turn = threading.Event()

        def parts() -> Iterator[federation_pb2.UploadRequest]:
            artifact = federation_pb2.Artifact(sha256=sha256, size=len(update))
            header = federation_pb2.UploadHeader(task=task, update=artifact, offset=offset)
            yield federation_pb2.UploadRequest(header=header)
            turn.wait()
            for start in range(offset, len(update), self._chunk):
                data = update[start : start + self._chunk]
                self.sent += len(data)
                yield federation_pb2.UploadRequest(data=data)

        timeout = _ANSWER + (len(update) - offset) / _SLOWEST

        def send() -> federation_pb2.UploadReply:
            call = self._stub.Upload.future(parts(), timeout=timeout)
            try:
                call.initial_metadata()  # until it is there, or the call is over
            finally:
                turn.set()
            return call.result()

        reply = self._call(send)
        self._moved(len(update) - offset)
        return reply

    def decline(self, task: str, reason: str) -> None:
        """Say why a task is not done."""
        request = federation_pb2.DeclineRequest(task=task, reason=reason)
        self._call(lambda: self._stub.Decline(request, timeout=_ANSWER))

    def heartbeat(self, task: str, progress: float) -> bool:
        """Say how far a task is, 0..1; whether it still counts."""
        request = federation_pb2.HeartbeatRequest(task=task, progress=progress)
        return self._call(lambda: self._stub.Heartbeat(request, timeout=_ANSWER)).wanted

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> GatewayConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except grpc.RpcError as error:
            code, details = error.code(), " ".join((error.details() or "").split())[:300]
            if code in _REFUSED:
                raise KitError(f"the gateway {self.address} refuses this device: {details}") from None
            if code is grpc.StatusCode.NOT_FOUND:
                raise GoneError(details) from None
            if code in _SILENT:
                raise AwayError(details) from None
            raise AwayError(f"the gateway says: {details or code.name}", heard=True) from None
