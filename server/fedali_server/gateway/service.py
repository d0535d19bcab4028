"""The devices' service: ``fedali.v1.Federation``."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fedali.v1 import federation_pb2
from fedali.wire import LARGEST_REASON, LARGEST_SOFTWARE, LONGEST_WAIT, PROTOCOL, TASK_ID
from fedali_server.gateway.gateway import INCOMPLETE, LATE, Gateway, verdict
from fedali_server.gateway.incoming import Upload
from fedali_server.gateway.lane import Lane
from fedali_server.gateway.orders import TRAIN
from fedali_server.gateway.refusal import malformed, not_found, not_now, too_much
from fedali_server.gateway.round import Round
from fedali_server.gateway.rpc import Context, Method
from fedali_server.gateway.visitors import Visitor

_Stream = AsyncIterator[federation_pb2.UploadRequest]


class FederationService:
    """Answers devices; each method takes the request and gRPC's context, and raises ``Refusal``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._limits = gateway, gateway.limits
        self._down, self._up = Lane(self._limits.devices_at_once), Lane(self._limits.devices_at_once)

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

    def _visitor(self, context: Context) -> Visitor:
        return self._gateway.visitors[self._gateway.roster.who(context.auth_context()).number]

    async def enrol(
        self, request: federation_pb2.EnrolRequest, context: Context
    ) -> federation_pb2.EnrolReply:
        """Versions, limits, the bundle to hold."""
        visitor = self._visitor(context)
        with visitor.call():
            if request.protocol != PROTOCOL:
                raise not_now(
                    f"this gateway speaks version {PROTOCOL} of the protocol, not {request.protocol}"
                )
            if len(request.software) > LARGEST_SOFTWARE or not request.software.isprintable():
                raise malformed(f"software is not one line of at most {LARGEST_SOFTWARE} characters")
            if len(request.bundle) not in (0, 32):
                raise malformed("bundle is no SHA-256")
            visitor.software, visitor.doing = request.software, "waiting"
            return federation_pb2.EnrolReply(
                federation=self._gateway.kit.federation,
                device=visitor.device.name,
                bundle=self._gateway.bundle,
                chunk_bytes=self._limits.chunk,
                heartbeat_seconds=self._limits.heartbeat,
                largest_update=self._gateway.largest_update,
            )

    async def next_task(
        self, request: federation_pb2.NextTaskRequest, context: Context
    ) -> federation_pb2.NextTaskReply:
        """Wait for a task."""
        visitor = self._visitor(context)
        if not 0 <= request.wait_seconds <= LONGEST_WAIT:  # false for NaN too
            raise malformed(f"wait_seconds is {request.wait_seconds}; it has to be 0 to {LONGEST_WAIT:g}")
        with visitor.call():
            visitor.polls += 1
            visitor.doing = "waiting"
            poll, clock = visitor.polls, asyncio.get_running_loop().time
            end = clock() + request.wait_seconds
            while True:
                self._visitor(context)  # it may have been revoked
                task = self._task(visitor)
                left = end - clock()
                if task is not None or left <= 0 or self._gateway.stopping or poll != visitor.polls:
                    return federation_pb2.NextTaskReply(task=task)
                await self._gateway.news(left)

    def _task(self, visitor: Visitor) -> federation_pb2.Task | None:
        round_ = self._gateway.open_round
        if round_ is None or visitor.number not in round_.waiting or round_.closed:
            return None
        round_.give(visitor.number)
        visitor.doing = "training" if round_.key.kind == TRAIN else "evaluating"
        order, model = round_.order, round_.model
        return federation_pb2.Task(
            id=round_.key.task,
            kind=order.kind,  # type: ignore[arg-type]
            run=order.run,
            round=order.round,
            bundle=federation_pb2.Artifact(sha256=model.sha256, size=model.size),
            state=federation_pb2.Artifact(sha256=round_.state_sha256, size=round_.state_size),
            epochs=order.epochs,
            influence=order.influence,
            entropy=[order.seed, 0, order.round, visitor.number],
            encoding=order.encoding,  # type: ignore[arg-type]
            seconds_left=round_.seconds_left(),
        )

    async def download(self, request: federation_pb2.DownloadRequest, context: Context) -> None:
        """An artifact from a byte on."""
        visitor = self._visitor(context)
        with visitor.call():
            path = self._artifact(request.sha256)
            size = path.stat().st_size
            if request.offset > size:
                raise malformed(f"offset is {request.offset}; the artifact has {size} bytes")
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                visitor.doing = "downloading"
                for offset in range(request.offset, size, self._limits.chunk):
                    self._visitor(context)
                    await self._send(visitor, handle, offset, context)
            finally:
                os.close(handle)

    async def _send(self, visitor: Visitor, handle: int, offset: int, context: Context) -> None:
        async with self._down.turn():
            data = os.pread(handle, self._limits.chunk, offset)
            visitor.sending(len(data))
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
        visitor = self._visitor(context)
        with visitor.call():
            round_, sha256 = self._round(request.task), _digest(request.sha256)
            if round_ is None:
                return federation_pb2.UploadOffsetReply()
            answer = round_.answers.get(visitor.number)
            if answer is not None and answer.sha256 == sha256 != "":
                return federation_pb2.UploadOffsetReply(received=answer.size)
            return federation_pb2.UploadOffsetReply(received=round_.incoming.held(visitor.number, sha256))

    async def upload(self, requests: _Stream, context: Context) -> federation_pb2.UploadReply:
        """An update."""
        visitor = self._visitor(context)
        with visitor.call():
            arriving = _Arriving(requests, self._limits.stall, self._limits.least_progress)
            first = await arriving.next()
            if first is None or first.WhichOneof("part") != "header":
                raise malformed("an upload begins with a header")
            header = first.header
            sha256, size = _digest(header.update.sha256), header.update.size
            round_ = self._round(header.task)
            if round_ is None:
                return federation_pb2.UploadReply(verdict=LATE, reason="the task is not of this round")
            known = verdict(round_, visitor.number, sha256)
            if known is not None:
                return known
            if not 0 < size <= round_.largest_update:
                why = f"the update has {size} bytes; the round takes 1 to {round_.largest_update}"
                return await self._gateway.refuse(round_, visitor, why)
            visitor.uploads += 1
            mine = visitor.uploads
            held = round_.incoming.held(visitor.number, sha256)
            if header.offset > held or header.offset > size:
                return federation_pb2.UploadReply(
                    verdict=INCOMPLETE, reason=f"go on at {held}", received=held
                )
            async with visitor.uploading:
                upload = round_.incoming.begin(visitor.number, sha256, header.offset)
            visitor.doing = "uploading"
            try:
                while upload.received < size:
                    ended = await self._receive(arriving, upload, size, visitor, mine, round_)
                    if ended is not None:
                        return ended
            finally:
                upload.close()
            async with visitor.uploading:
                return await self._gateway.finish(round_, visitor, sha256, context.auth_context())

    async def _receive(
        self, arriving: _Arriving, upload: Upload, size: int, visitor: Visitor, mine: int, round_: Round
    ) -> federation_pb2.UploadReply | None:
        """The next bytes; the answer when the upload ends without being whole."""
        async with self._up.turn():
            part = await arriving.next()
            if part is None:
                return federation_pb2.UploadReply(verdict=INCOMPLETE, received=upload.received)
            data = part.data
            if part.WhichOneof("part") != "data" or len(data) > self._limits.chunk:
                raise malformed(
                    f"behind an upload's header come chunks of at most {self._limits.chunk} bytes"
                )
            too_many = upload.received + len(data) > size
            if too_many:
                upload.path.unlink(missing_ok=True)
            visitor.receiving(len(data))
            if too_many:
                raise malformed("more bytes came than the header said")
            async with visitor.uploading:
                if mine != visitor.uploads:
                    raise not_now("this device began another upload")
                known = verdict(round_, visitor.number, "")
                if known is not None:
                    return known
                upload.write(data)
        return None

    async def decline(
        self, request: federation_pb2.DeclineRequest, context: Context
    ) -> federation_pb2.DeclineReply:
        """The round goes on without the device."""
        visitor = self._visitor(context)
        with visitor.call():
            if len(request.reason) > LARGEST_REASON or not request.reason.isprintable():
                raise malformed(f"reason is not one line of at most {LARGEST_REASON} characters")
            round_ = self._round(request.task)
            if round_ is not None:
                await self._gateway.decline(round_, visitor, request.reason or "no reason was given")
            return federation_pb2.DeclineReply()

    async def heartbeat(
        self, request: federation_pb2.HeartbeatRequest, context: Context
    ) -> federation_pb2.HeartbeatReply:
        """Whether a device's task still counts."""
        visitor = self._visitor(context)
        with visitor.call():
            if not request.task:
                return federation_pb2.HeartbeatReply(wanted=True)
            if not (math.isfinite(request.progress) and 0 <= request.progress <= 1):
                raise malformed(f"progress is {request.progress}; it has to be 0 to 1")
            round_ = self._round(request.task)
            wanted = round_ is not None and not round_.closed and visitor.number in round_.waiting
            if round_ is not None and wanted:
                doing = "training" if round_.key.kind == TRAIN else "evaluating"
                visitor.doing = f"{doing}, {request.progress:.0%}"
            return federation_pb2.HeartbeatReply(wanted=wanted)

    def _round(self, task: str) -> Round | None:
        if not TASK_ID.fullmatch(task):
            raise malformed("a task's id has 32 lower-case hex digits")
        return self._gateway.of_task(task)


class _Arriving:
    """Messages of an upload, as long as they come fast enough; time in which none is asked for does not count."""

    def __init__(self, requests: _Stream, stall: float, least: int) -> None:
        self._requests, self._stall, self._least = requests, stall, least
        self._left, self._moved = stall, 0

    async def next(self) -> federation_pb2.UploadRequest | None:
        """The next one, or None at the end. Raises ``Refusal`` when less than the least came in time."""
        clock = asyncio.get_running_loop().time
        waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(self._requests, None))
        try:
            while not waiting.done():
                began = clock()
                await asyncio.wait([waiting], timeout=self._left)
                self._left -= clock() - began
                if self._left <= 0:
                    if self._moved < self._least:
                        raise too_much(
                            f"fewer than {self._least} bytes in {self._stall:g} seconds: send faster, or later"
                        )
                    self._left, self._moved = self._stall, 0
            part: federation_pb2.UploadRequest | None = waiting.result()
        finally:
            waiting.cancel()
        self._moved += 0 if part is None else len(part.data)
        return part


def _digest(sha256: bytes) -> str:
    if len(sha256) != 32:
        raise malformed("sha256 has to have 32 bytes")
    return sha256.hex()
