"""Many devices in one process, for ``make bench-gateway``: each has its certificate, its connection, and no training to do.

Devices answer as fast as they can, so that all are at the gateway at once: the worst that a round can bring.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np

from fedali.bundle.file import read_bundle
from fedali.methods import build_method, shared_indices
from fedali.uploads import Upload
from fedali.v1 import federation_pb2, federation_pb2_grpc, relay_pb2, relay_pb2_grpc
from fedali.wire import messages as wire
from fedali.wire import options
from fedali.wire.kit import DeviceKit, read_kit_as

if TYPE_CHECKING:
    _Stub = federation_pb2_grpc.FederationAsyncStub  # in the types alone

_TICKS = os.sysconf("SC_CLK_TCK")
_PROBES, _PROBE_PAUSE = 10, 0.1  # devices that send heartbeats all the time, and seconds between them
_LOOK = 0.05  # seconds between looks at the gateway's memory
_SLACK = 600.0  # seconds that an answer may take: the bench reports times, it does not enforce them


@dataclass(frozen=True)
class Order:
    """What to do: for ``devices`` kits in ``kits``, ``rounds`` rounds of ``bundle`` at the gateway with the id ``gateway``."""

    kits: str
    devices: int
    bundle: str
    socket: str
    gateway: int
    rounds: int

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What ``to_json`` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))


@dataclass
class Seen:
    """What was measured: seconds and bytes."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    handout: list[float] = field(
        default_factory=list
    )  # from the order to a device's task; percentiles 0 to 100
    heartbeat: list[float] = field(default_factory=list)  # answers to heartbeats during rounds; percentiles
    memory: dict[str, int] = field(default_factory=dict)
    sent: int = 0  # by a device in a round
    received: int = 0


class Bench:
    """Devices, the site's node, and what they see."""

    def __init__(self, order: Order) -> None:
        self.order, self.seen = order, Seen()
        self.bundle = Path(order.bundle).read_bytes()
        self.sha256 = hashlib.sha256(self.bundle).digest()
        manifest = read_bundle(order.bundle, None, allow_unsigned=True).manifest
        method = build_method(manifest.method.name, manifest.method.options)
        self.shared = shared_indices(method, manifest.layouts.parameters)
        random = np.random.default_rng(0)
        self.theta = random.standard_normal(manifest.layouts.parameters.size).astype(np.float32)
        self.prototypes = random.standard_normal(manifest.layouts.prototypes.size).astype(np.float32)
        self.begun = 0.0
        self.round = self.chunk = 0

    async def run(self) -> Seen:
        """All rounds."""
        relay = relay_pb2_grpc.RelayStub(
            grpc.aio.insecure_channel(f"unix:{self.order.socket}", options.relay_options())
        )
        await relay.PutBundle(relay_pb2.PutBundleRequest(bundle=self.bundle), wait_for_ready=True)
        kits = [read_kit_as(Path(self.order.kits, f"d-{n:04}"), DeviceKit) for n in range(self.order.devices)]
        lines = [_connect(kit) for kit in kits]
        for first in range(0, len(lines), 50):  # handshakes of 500 at once are not what is measured
            (self.chunk, *_) = await asyncio.gather(*(_enrol(stub) for _, stub in lines[first : first + 50]))
        self.seen.memory["connected"] = _memory(self.order.gateway)["VmRSS"]
        watch = asyncio.create_task(self._watch())
        devices = [
            asyncio.create_task(self._device(kit, *line)) for kit, line in zip(kits, lines, strict=True)
        ]
        probes = [asyncio.create_task(self._probe(kit)) for kit in kits[:_PROBES]]
        await asyncio.sleep(1.0)  # until all are waiting for a task
        for round_ in range(1, self.order.rounds + 1):
            self.round = round_
            await self._round(relay)
        for probe in [*probes, watch]:
            probe.cancel()
        await asyncio.gather(*devices)
        self.seen.memory["peak"] = _memory(self.order.gateway)["VmHWM"]
        self.seen.handout, self.seen.heartbeat = (
            _percentiles(self.seen.handout),
            _percentiles(self.seen.heartbeat),
        )
        return self.seen

    async def _round(self, relay: relay_pb2_grpc.RelayAsyncStub) -> None:
        order = relay_pb2.RoundOrder(
            run="bench",
            round=self.round,
            kind=federation_pb2.TASK_KIND_TRAIN,
            bundle=self.sha256,
            theta=self.theta.tobytes(),
            prototypes=self.prototypes.tobytes(),
            epochs=1,
            seed=1,
            encoding=federation_pb2.ENCODING_FLOAT32,
            seconds=_SLACK,
            quorum=1.0,
            devices=range(self.order.devices),
        )
        busy, self.begun = _busy(self.order.gateway), time.monotonic()
        outcome = await relay.Round(order, timeout=_SLACK)
        seconds = time.monotonic() - self.begun
        assert {report.state for report in outcome.devices} == {"done"}
        assert len(outcome.devices) == self.order.devices
        count = self.order.devices
        upload = Upload.from_bytes(outcome.upload)
        assert upload.sums["theta"].weight == count * (count + 1) / 2
        mean = upload.mean("theta")
        np.testing.assert_array_equal(mean.astype(np.float32), self._trained())
        self.seen.rounds.append({"seconds": seconds, "cpu_seconds": _busy(self.order.gateway) - busy})
        self.seen.sent, self.seen.received = outcome.devices[0].received, outcome.devices[0].sent

    def _trained(self) -> Any:
        return self.theta[self.shared] + np.float32(0.01)

    async def _device(self, kit: DeviceKit, channel: grpc.aio.Channel, stub: _Stub) -> None:
        for _ in range(self.order.rounds):
            task = None
            while task is None:
                reply = await stub.NextTask(federation_pb2.NextTaskRequest(wait_seconds=60), timeout=_SLACK)
                task = reply.task if reply.HasField("task") else None
            self.seen.handout.append(time.monotonic() - self.begun)
            digest = hashlib.sha256()
            async for chunk in stub.Download(
                federation_pb2.DownloadRequest(sha256=task.state.sha256), timeout=_SLACK
            ):
                digest.update(chunk.data)
            assert digest.digest() == task.state.sha256
            await channel.close()
            channel, stub = _connect(kit)  # as a device does after a large transfer
            data = self._update(kit.number, task.id)
            await _upload(stub, task.id, data, self.chunk)
            await channel.close()
            channel, stub = _connect(kit)
        await channel.close()

    def _update(self, number: int, task: str) -> bytes:
        update = wire.ClientUpdate(
            task, self.sha256, number + 1, self._trained(), self.prototypes, {"train_loss": 0.5}
        )
        return wire.encode_update(update)[0]

    async def _probe(self, kit: DeviceKit) -> None:
        _, stub = _connect(kit)
        while True:
            started = time.monotonic()
            await stub.Heartbeat(federation_pb2.HeartbeatRequest(), timeout=_SLACK)
            if self.round:
                self.seen.heartbeat.append(time.monotonic() - started)
            await asyncio.sleep(_PROBE_PAUSE)

    async def _watch(self) -> None:
        while True:
            found = _memory(self.order.gateway)["VmRSS"]
            self.seen.memory["rounds"] = max(self.seen.memory.get("rounds", 0), found)
            await asyncio.sleep(_LOOK)


def _connect(kit: DeviceKit) -> tuple[grpc.aio.Channel, _Stub]:
    credentials = grpc.ssl_channel_credentials(
        kit.authority.read_bytes(), kit.key.read_bytes(), kit.certificate.read_bytes()
    )
    chosen = [*options.client_options(kit.gateway_name), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.secure_channel(kit.gateway, credentials, chosen)
    return channel, federation_pb2_grpc.FederationStub(channel)  # type: ignore[return-value]


async def _enrol(stub: _Stub) -> int:
    """Bytes of a chunk."""
    request = federation_pb2.EnrolRequest(protocol=wire.PROTOCOL, software="bench")
    return int((await stub.Enrol(request, wait_for_ready=True, timeout=_SLACK)).chunk_bytes)


async def _upload(stub: _Stub, task: str, data: bytes, chunk: int) -> None:
    """Send an update when it is the device's turn."""
    turn = asyncio.Event()
    call = stub.Upload(_parts(task, data, chunk, turn), timeout=_SLACK)
    await call.initial_metadata()
    turn.set()
    reply = await call
    assert reply.verdict == federation_pb2.VERDICT_COUNTED, reply.reason


async def _parts(
    task: str, data: bytes, chunk: int, turn: asyncio.Event
) -> AsyncIterator[federation_pb2.UploadRequest]:
    artifact = federation_pb2.Artifact(sha256=hashlib.sha256(data).digest(), size=len(data))
    yield federation_pb2.UploadRequest(header=federation_pb2.UploadHeader(task=task, update=artifact))
    await turn.wait()
    for first in range(0, len(data), chunk):
        yield federation_pb2.UploadRequest(data=data[first : first + chunk])


def _percentiles(values: list[float]) -> list[float]:
    """0 to 100, as they were seen."""
    return [round(float(one), 6) for one in np.percentile(values, range(101), method="higher")]


def _memory(pid: int) -> dict[str, int]:
    """Bytes by kind."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words and words[0].startswith("Vm")
    }


def _busy(pid: int) -> float:
    """Processor seconds so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(asdict(asyncio.run(Bench(Order.from_json(sys.argv[1])).run()))))
