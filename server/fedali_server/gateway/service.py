"""The devices' service: ``fedali.v1.Federation``."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

from fedali.v1 import federation_pb2
from fedali.wire.messages import (
    LARGEST_REASON,
    LARGEST_SAMPLES,
    LARGEST_SOFTWARE,
    LONGEST_WAIT,
    PROTOCOL,
    TASK_ID,
)
from fedali_server.gateway.devices import GatewayDevice
from fedali_server.gateway.gateway import Gateway
from fedali_server.gateway.receipt import Arriving, Receipt, Requests
from fedali_server.gateway.refusal import malformed, not_found, not_now, too_much
from fedali_server.gateway.rounds.orders import DOING, STATISTICS
from fedali_server.gateway.rounds.round import Round
from fedali_server.gateway.rpc import Context, Method
from fedali_server.gateway.transfer_queue import TransferQueue


class FederationService:
    """Answers devices; each method takes the request and gRPC's context, and raises ``Refusal``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._limits = gateway, gateway.limits
        self._down, self._up = (
            TransferQueue(self._limits.transfers_at_once),
            TransferQueue(self._limits.transfers_at_once),
        )

    @property
    def methods(self) -> dict[str, Method]:
        """By the names of the protocol."""
        return {
            "Enrol": self.enrol,
            "NextTask": self.next_task,
            "Download": self.download,
            "UploadOffset": self.upload_offset,
            "Upload": self.upload,
            "Decline": self.decline,
            "Heartbeat": self.heartbeat,
        }

    def _device(self, context: Context) -> GatewayDevice:
        return self._gateway.devices[self._gateway.roster.who(context.auth_context()).number]

    async def enrol(
        self, request: federation_pb2.EnrolRequest, context: Context
    ) -> federation_pb2.EnrolReply:
        """Versions, limits, the bundle to hold."""
        device = self._device(context)
        with device.call():
            if request.protocol != PROTOCOL:
                raise not_now(
                    f"this gateway speaks version {PROTOCOL} of the protocol, not {request.protocol}"
                )
            if len(request.software) > LARGEST_SOFTWARE or not request.software.isprintable():
                raise malformed(f"software is not one line of at most {LARGEST_SOFTWARE} characters")
            if len(request.bundle) not in (0, 32):
                raise malformed("bundle is no SHA-256")
            device.software, device.doing = request.software, "waiting"
            device.train_samples = min(request.train_samples, LARGEST_SAMPLES)
            device.test_samples = min(request.test_samples, LARGEST_SAMPLES)
            return federation_pb2.EnrolReply(
                federation=self._gateway.kit.federation,
                device=device.entry.name,
                bundle=self._gateway.bundle,
                chunk_bytes=self._limits.chunk,
                heartbeat_seconds=self._limits.heartbeat,
                largest_update=self._gateway.largest_update,
            )

    async def next_task(
        self, request: federation_pb2.NextTaskRequest, context: Context
    ) -> federation_pb2.NextTaskReply:
        """Wait for a task."""
        device = self._device(context)
        if not 0 <= request.wait_seconds <= LONGEST_WAIT:  # false for NaN too
            raise malformed(f"wait_seconds is {request.wait_seconds}; it has to be 0 to {LONGEST_WAIT:g}")
        with device.call():
            device.polls += 1
            device.doing = "waiting"
            poll, clock = device.polls, asyncio.get_running_loop().time
            end = clock() + request.wait_seconds
            while True:
                self._device(context)  # it may have been revoked
                task = self._task(device)
                left = end - clock()
                if task is not None or left <= 0 or self._gateway.stopping or poll != device.polls:
                    return federation_pb2.NextTaskReply(task=task)
                await self._gateway.news(left)

    def _task(self, device: GatewayDevice) -> federation_pb2.Task | None:
        round_ = self._gateway.open_round
        if round_ is None or device.number not in round_.waiting or round_.closed:
            return None
        round_.give(device.number)
        device.doing = DOING[round_.key.kind]
        order, model = round_.order, round_.model
        state = federation_pb2.Artifact(sha256=round_.state_sha256, size=round_.state_size)
        return federation_pb2.Task(
            id=round_.key.task,
            kind=order.kind,  # type: ignore[arg-type]
            run=order.run,
            round=order.round,
            bundle=federation_pb2.Artifact(sha256=model.sha256, size=model.size),
            state=None if order.kind == STATISTICS else state,
            epochs=order.epochs,
            influence=order.influence,
            entropy=[order.seed, 0, order.round, device.number],
            encoding=order.encoding,  # type: ignore[arg-type]
            seconds_left=self._gateway.seconds_left(round_),
        )

    async def download(self, request: federation_pb2.DownloadRequest, context: Context) -> None:
        """An artifact from a byte on."""
        device = self._device(context)
        with device.call():
            path = self._artifact(request.sha256)
            size = path.stat().st_size
            if request.offset > size:
                raise malformed(f"offset is {request.offset}; the artifact has {size} bytes")
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                device.doing = "downloading"
                async with self._down.turn() as turn:
                    for offset in range(request.offset, size, self._limits.chunk):
                        self._device(context)
                        with turn.waiting():
                            await self._send(device, handle, offset, context)
            finally:
                os.close(handle)

    async def _send(self, device: GatewayDevice, handle: int, offset: int, context: Context) -> None:
        data = os.pread(handle, self._limits.chunk, offset)
        device.sending(len(data))
        try:
            await asyncio.wait_for(context.write(federation_pb2.Chunk(data=data)), self._limits.stall)
        except asyncio.TimeoutError:
            raise too_much(
                f"no chunk was taken in {self._limits.stall:g} seconds: go on at {offset}"
            ) from None

    def _artifact(self, sha256: bytes) -> Path:
        gateway = self._gateway
        if len(sha256) != 32:
            raise malformed("sha256 has to have 32 bytes")
        if gateway.open_round is not None and gateway.open_round.state_sha256 == sha256:
            return gateway.open_round.state_path
        if gateway.bundles.held(sha256):
            return gateway.bundles.path(sha256)
        raise not_found("the gateway has no such artifact, or no longer")

    async def upload_offset(
        self, request: federation_pb2.UploadOffsetRequest, context: Context
    ) -> federation_pb2.UploadOffsetReply:
        """How much of an update is here."""
        device = self._device(context)
        with device.call():
            round_, sha256 = self._round(request.task), _digest(request.sha256)
            if round_ is None:
                known = self._gateway.past_verdict(request.task, device.number, sha256)
                return federation_pb2.UploadOffsetReply(received=known.received)
            answer = round_.answers.get(device.number)
            if answer is not None and answer.sha256 == sha256 != "":
                return federation_pb2.UploadOffsetReply(received=answer.size)
            return federation_pb2.UploadOffsetReply(received=round_.incoming.held(device.number, sha256))

    async def upload(self, requests: Requests, context: Context) -> federation_pb2.UploadReply:
        """An update."""
        device = self._device(context)
        with device.call():
            arriving = Arriving(requests, self._limits.stall, self._limits.least_progress)
            first = await arriving.next()
            if first is None or first.WhichOneof("part") != "header":
                raise malformed("an upload begins with a header")
            round_, sha256 = self._round(first.header.task), _digest(first.header.update.sha256)
            if round_ is None:
                return self._gateway.past_verdict(first.header.task, device.number, sha256)
            receipt = Receipt(round_, device, sha256, first.header.update.size, self._limits.chunk)
            ended = await receipt.begin(self._gateway, first.header.offset)
            if ended is not None:
                return ended
            async with self._up.turn() as turn:
                device.doing = "uploading"
                await context.send_initial_metadata(())  # the device's turn: it may send data
                ended = await receipt.receive(arriving, turn, first.header.offset)
                if ended is not None:
                    return ended
                async with device.uploading:
                    return await self._gateway.finish(round_, device, sha256, context.auth_context())

    async def decline(
        self, request: federation_pb2.DeclineRequest, context: Context
    ) -> federation_pb2.DeclineReply:
        """The round goes on without the device."""
        device = self._device(context)
        with device.call():
            if len(request.reason) > LARGEST_REASON or not request.reason.isprintable():
                raise malformed(f"reason is not one line of at most {LARGEST_REASON} characters")
            round_ = self._round(request.task)
            if round_ is not None:
                await self._gateway.decline(round_, device, request.reason or "no reason was given")
            return federation_pb2.DeclineReply()

    async def heartbeat(
        self, request: federation_pb2.HeartbeatRequest, context: Context
    ) -> federation_pb2.HeartbeatReply:
        """Whether a device's task still counts."""
        device = self._device(context)
        with device.call():
            if not request.task:
                return federation_pb2.HeartbeatReply(wanted=True)
            if not (math.isfinite(request.progress) and 0 <= request.progress <= 1):
                raise malformed(f"progress is {request.progress}; it has to be 0 to 1")
            round_ = self._round(request.task)
            wanted = round_ is not None and not round_.closed and device.number in round_.waiting
            if round_ is not None and wanted:
                device.doing = f"{DOING[round_.key.kind]}, {request.progress:.0%}"
            return federation_pb2.HeartbeatReply(wanted=wanted)

    def _round(self, task: str) -> Round | None:
        if not TASK_ID.fullmatch(task):
            raise malformed("a task's id has 32 lower-case hex digits")
        return self._gateway.of_task(task)


def _digest(sha256: bytes) -> str:
    if len(sha256) != 32:
        raise malformed("sha256 has to have 32 bytes")
    return sha256.hex()
