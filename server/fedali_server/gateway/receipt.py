"""An update on its way in: from an upload's header to its last byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fedali.v1 import federation_pb2
from fedali_server.gateway.devices import GatewayDevice
from fedali_server.gateway.gateway import INCOMPLETE, Gateway, verdict
from fedali_server.gateway.refusal import malformed, not_now, too_much
from fedali_server.gateway.rounds.incoming import Upload
from fedali_server.gateway.rounds.round import Round
from fedali_server.gateway.transfer_queue import Turn

Requests = AsyncIterator[federation_pb2.UploadRequest]


class Arriving:
    """Messages of an upload, as long as they come fast enough; time in which none is asked for does not count."""

    def __init__(self, requests: Requests, stall: float, least: int) -> None:
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


@dataclass
class Receipt:
    """One upload.

    Args:
        round_: that it is for.
        device: whose it is.
        sha256: of the update, in hex.
        size: of the update in bytes, as its header says.
        chunk: bytes that a message may have.
    """

    round_: Round
    device: GatewayDevice
    sha256: str
    size: int
    chunk: int
    _mine: int = 0

    async def begin(self, gateway: Gateway, offset: int) -> federation_pb2.UploadReply | None:
        """Take the place of the device's other uploads; the answer when nothing needs to come."""
        round_, number = self.round_, self.device.number
        known = verdict(round_, number, self.sha256)
        if known is not None:
            return known
        if not 0 < self.size <= round_.largest_update:
            why = f"the update has {self.size} bytes; the round takes 1 to {round_.largest_update}"
            return await gateway.refuse(round_, self.device, why)
        held = round_.incoming.held(number, self.sha256)
        if offset > held or offset > self.size:
            return federation_pb2.UploadReply(verdict=INCOMPLETE, reason=f"go on at {held}", received=held)
        self.device.uploads += 1
        self._mine = self.device.uploads
        return None

    async def receive(self, arriving: Arriving, turn: Turn, offset: int) -> federation_pb2.UploadReply | None:
        """Write all that comes from byte ``offset`` on; the answer when the upload ends without being whole."""
        async with self.device.uploading:
            known = self._known()
            if known is not None:
                return known
            upload = self.round_.incoming.begin(self.device.number, self.sha256, offset)
        try:
            while upload.received < self.size:
                with turn.waiting():
                    part = await arriving.next()
                if part is None:
                    return federation_pb2.UploadReply(verdict=INCOMPLETE, received=upload.received)
                known = await self._keep(part, upload)
                if known is not None:
                    return known
        finally:
            upload.close()
        return None

    async def _keep(
        self, part: federation_pb2.UploadRequest, upload: Upload
    ) -> federation_pb2.UploadReply | None:
        data = part.data
        if part.WhichOneof("part") != "data" or len(data) > self.chunk:
            raise malformed(f"behind an upload's header come chunks of at most {self.chunk} bytes")
        too_many = upload.received + len(data) > self.size
        if too_many:
            upload.path.unlink(missing_ok=True)
        self.device.receiving(len(data))
        if too_many:
            raise malformed("more bytes came than the header said")
        async with self.device.uploading:
            known = self._known()
            if known is None:
                upload.write(data)
        return known

    def _known(self) -> federation_pb2.UploadReply | None:
        """The answer when the round goes on without this upload."""
        if self._mine != self.device.uploads:
            raise not_now("this device began another upload")
        return verdict(self.round_, self.device.number, self.sha256)
