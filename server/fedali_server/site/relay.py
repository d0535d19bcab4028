"""A site whose clients are devices: its Flower node hands each round to the gateway that the devices are connected to.

The gateway is another process of the same site, reached over a Unix socket. It does a round once and answers again when it is
asked again, so whoever is killed, node, gateway or server, a round is neither lost nor done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedali.cohort.contract import ClientMetrics, RoundSettings, SiteReply
from fedali.cohort.weights import Weights
from fedali.data.normalisation import ChannelSums
from fedali.errors import FedaliError
from fedali.methods import SharedState, Upload
from fedali.v1 import federation_pb2, relay_pb2, relay_pb2_grpc
from fedali.wire import options
from fedali.wire.sockets import UnixAddress
from fedali.wire.statistics import of_message
from fedali_server.flower import relay_records
from fedali_server.flower.client_app import make_client_app
from fedali_server.flower.packing import Mod

_PAUSE = 0.1  # seconds between attempts


class RoundKeeper(Protocol):
    """What a site's node asks for what it answers the server; methods raise ``FedaliError`` with a reason in one line."""

    def status(self) -> relay_pb2.SiteStatus:
        """Who is there."""
        ...

    def has_bundle(self, sha256: bytes) -> bool:
        """Whether it holds the bundle with this SHA-256."""
        ...

    def put_bundle(self, bundle: bytes) -> None:
        """Give it a bundle."""
        ...

    def revoke(self, revoked: bytes, signature: bytes) -> int:
        """Give it a list of certificates not to be trusted any more; the number of the list that it has then."""
        ...

    def round(self, order: relay_pb2.RoundOrder) -> relay_pb2.RoundOutcome:
        """Have a round done; the same order gets the same answer."""
        ...


class RelayConnection:
    """A site's connection to its own gateway, a ``RoundKeeper``.

    Args:
        socket: the Unix socket that it listens on.
        patience: seconds that it may be away, and an answer may take besides a round's own time.

    Each method waits while the gateway restarts, and raises ``FedaliError`` with the gateway's reason when it refuses, or when
    it stays away.
    """

    def __init__(self, socket: Path, *, patience: float = 60.0) -> None:
        self.socket, self.patience = socket, patience
        self._there = UnixAddress(socket)
        self._channel = grpc.insecure_channel(self._there.address, options.relay_options())
        self._stub = relay_pb2_grpc.RelayStub(self._channel)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()
        self._there.close()

    def status(self) -> relay_pb2.SiteStatus:
        """Who is there."""
        found: relay_pb2.SiteStatus = self._ask(self._stub.Status, relay_pb2.StatusRequest())
        return found

    def has_bundle(self, sha256: bytes) -> bool:
        """Whether it holds the bundle with this SHA-256."""
        return bool(self._ask(self._stub.HasBundle, relay_pb2.HasBundleRequest(sha256=sha256)).held)

    def put_bundle(self, bundle: bytes) -> None:
        """Give it a bundle."""
        self._ask(self._stub.PutBundle, relay_pb2.PutBundleRequest(bundle=bundle))

    def revoke(self, revoked: bytes, signature: bytes) -> int:
        """Give it a list of certificates not to be trusted any more; the number of the list that it has then."""
        request = relay_pb2.RevokeRequest(list=revoked, signature=signature)
        return int(self._ask(self._stub.Revoke, request).number)

    def round(self, order: relay_pb2.RoundOrder) -> relay_pb2.RoundOutcome:
        """Have a round done."""
        own = order.seconds + order.grace_seconds
        found: relay_pb2.RoundOutcome = self._ask(self._stub.Round, order, own)
        return found

    def _ask(self, call: Callable[..., Any], request: Any, own: float = 0.0) -> Any:
        seconds = own + self.patience
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            try:
                return call(request, timeout=max(left, _PAUSE), wait_for_ready=True)
            except grpc.RpcError as error:
                code, why = error.code(), error.details()
                if code is grpc.StatusCode.DEADLINE_EXCEEDED or left <= _PAUSE:
                    raise FedaliError(
                        f"the gateway at {self.socket} did not answer within {seconds:.0f} s: is it running?"
                    ) from None
                if code is not grpc.StatusCode.UNAVAILABLE:
                    raise FedaliError(f"the gateway refused: {why or code.name}") from None
            time.sleep(_PAUSE)


@dataclass(frozen=True)
class DeviceRun:
    """What all rounds of a run have in common: the ``Context.run_config`` of a run on devices."""

    run: str
    bundle: bytes
    epochs: int
    seed: int
    encoding: int
    largest_samples: int
    seconds: float
    quorum: float
    grace_seconds: float
    largest_step: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DeviceRun:
        """Read a run's settings; ``FedaliError`` when they are of another kind of run."""
        try:
            return cls(
                str(config["run"]),
                bytes.fromhex(str(config["bundle"])),
                *(int(config[name]) for name in ("epochs", "seed", "encoding", "largest_samples")),
                *(float(config[name]) for name in ("seconds", "quorum", "grace_seconds", "largest_step")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FedaliError(
                f"this site trains devices, and the run is not one for devices ({error}): start it with fedali run"
            ) from None


class RelaySite:
    """The devices of a site in one run; implements ``fedali.cohort.contract.Site``.

    Args:
        keeper: the gateway that the devices are connected to, or what stands for it.
        run: what the rounds have in common.
    """

    def __init__(self, keeper: RoundKeeper, run: DeviceRun) -> None:
        self._keeper, self._run = keeper, run

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """Have the devices train; the sum of those that did, and a report of each."""
        outcome = self._round(settings, shared, federation_pb2.TASK_KIND_TRAIN)
        return self._reply(outcome.devices, "samples", Upload.from_bytes(outcome.upload))

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """Have the devices evaluate the server's model."""
        outcome = self._round(settings, shared, federation_pb2.TASK_KIND_EVALUATE)
        return self._reply(outcome.devices, "test_samples", None)

    def statistics(self, weights: Weights) -> tuple[ChannelSums | None, tuple[dict[str, Any], ...]]:
        """Have the devices add up their training data, each counted as ``weights`` says; all together, None where none answered, and a report of each."""
        empty = SharedState(np.empty(0, np.float32), np.empty(0, np.float32))
        outcome = self._round(RoundSettings(0, weights=weights), empty, federation_pb2.TASK_KIND_STATISTICS)
        sums = of_message(outcome.statistics) if outcome.HasField("statistics") else None
        return sums, self._reply(outcome.devices, "samples", None).reports

    def _round(
        self, settings: RoundSettings, shared: SharedState, kind: federation_pb2.TaskKind
    ) -> relay_pb2.RoundOutcome:
        run = self._run
        order = relay_pb2.RoundOrder(
            run=run.run,
            round=settings.round,
            kind=int(kind),
            bundle=run.bundle,
            theta=np.asarray(shared.theta, "<f4").tobytes(),
            prototypes=np.asarray(shared.prototypes, "<f4").tobytes(),
            epochs=run.epochs,
            influence=settings.influence,
            seed=run.seed,
            encoding=run.encoding,
            seconds=run.seconds,
            quorum=run.quorum,
            grace_seconds=run.grace_seconds,
            largest_step=run.largest_step,
            largest_samples=run.largest_samples,
            largest_weight=settings.weights.most,
            largest_weights=settings.weights.own,
        )
        return self._keeper.round(order)

    def _reply(
        self, devices: Sequence[relay_pb2.DeviceReport], samples: str, upload: Upload | None
    ) -> SiteReply:
        site = self._keeper.status().site
        reports = tuple(
            {
                "site": site,
                "device": device.device,
                "number": device.number,
                "state": device.state,
                "reason": device.reason,
                "seconds": device.seconds,
                "sent": device.sent,
                "received": device.received,
                "samples": device.samples,
                "weight": device.weight or device.samples,
                "metrics": dict(device.metrics),
            }
            for device in sorted(devices, key=lambda device: device.number)
        )
        return SiteReply(_columns(reports, samples), upload, reports)


def make_relay_app(find_keeper: Callable[[Context], RoundKeeper], mods: Sequence[Mod] = ()) -> ClientApp:
    """A ``ClientApp`` that answers with what a gateway, or what stands for it, says; ``mods`` are Flower's, around all that it does."""

    def site(context: Context) -> RelaySite:
        return RelaySite(find_keeper(context), DeviceRun.of(context.run_config))

    app = make_client_app(site, mods)

    @app.query(relay_records.HELLO)
    def hello(message: Message, context: Context) -> Message:
        status = find_keeper(context).status()
        return Message(relay_records.answer_hello(status), reply_to=message)

    @app.query(relay_records.HAS_BUNDLE)
    def has_bundle(message: Message, context: Context) -> Message:
        held = find_keeper(context).has_bundle(relay_records.read_sha256(message))
        return Message(relay_records.answer_has_bundle(held), reply_to=message)

    @app.query(relay_records.PUT_BUNDLE)
    def put_bundle(message: Message, context: Context) -> Message:
        find_keeper(context).put_bundle(relay_records.read_bundle(message))
        return Message(RecordDict(), reply_to=message)

    @app.query(relay_records.STATISTICS)
    def statistics(message: Message, context: Context) -> Message:
        weights = relay_records.read_ask_statistics(message)
        answer = relay_records.answer_statistics(*site(context).statistics(weights))
        return Message(answer, reply_to=message)

    @app.query(relay_records.REVOKE)
    def revoke(message: Message, context: Context) -> Message:
        number = find_keeper(context).revoke(*relay_records.read_revoke(message))
        return Message(relay_records.answer_revoke(number), reply_to=message)

    return app


def _columns(reports: Sequence[Mapping[str, Any]], samples: str) -> ClientMetrics:
    """Of the devices that are done: their numbers, samples that they count as, and metrics; NaN where one has no such metric."""
    done = [report for report in reports if report["state"] == "done"]
    names = sorted({name for report in done for name in report["metrics"]})
    columns = {name: [float(report["metrics"].get(name, np.nan)) for report in done] for name in names}
    own = {
        "client": [float(report["number"]) for report in done],
        samples: [float(report["weight"]) for report in done],
    }
    return {**columns, **own}
