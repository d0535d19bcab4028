"""The gateway itself: the open round, the devices, and what binds them. Runs on one event loop.

What touches the disk for long or computes for long runs on one worker thread, one job after another: counting an update,
closing a round. Whatever is counted was counted before the round closed, or it is late.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
import structlog

from fedali.bundle.file import LARGEST
from fedali.bundle.keys import load_public
from fedali.errors import DataError, FedaliError, WireError
from fedali.support.files import reporting
from fedali.v1 import federation_pb2, relay_pb2
from fedali.wire.kit import SiteKit
from fedali.wire.messages import largest_update
from fedali_server.gateway.devices import GatewayDevice
from fedali_server.gateway.identity import Roster
from fedali_server.gateway.limits import Limits
from fedali_server.gateway.refusal import Refusal, malformed, not_now
from fedali_server.gateway.rounds.bundles import Bundles
from fedali_server.gateway.rounds.orders import RoundKey, check_order, content
from fedali_server.gateway.rounds.round import DONE, Round
from fedali_server.gateway.rounds.round_store import RoundStore

log = structlog.get_logger("fedali.gateway")
_Result = TypeVar("_Result")

COUNTED, LATE, REFUSED, INCOMPLETE = (
    federation_pb2.VERDICT_COUNTED,
    federation_pb2.VERDICT_LATE,
    federation_pb2.VERDICT_REFUSED,
    federation_pb2.VERDICT_INCOMPLETE,
)
_SPOILED = 3  # uploads that are not what they should be, until the device is refused for the round
_AGAIN = 2.0  # seconds until a disk that was full is tried again
_LOOK = 2.0  # seconds between looks for a new revocation list in the kit


class Gateway:
    """Of one site; ``start`` takes up what an earlier process left in ``state``.

    Raises ``FedaliError`` for a kit or a state that cannot be used.
    """

    def __init__(self, kit: SiteKit, state: Path, limits: Limits) -> None:
        self.kit, self.limits, self.state = kit, limits, state
        trusted = load_public(kit.trusted_key)
        self.roster = Roster(kit.devices, trusted, kit.revoked, state / "revoked.json")
        self.bundles = Bundles(state / "bundles", trusted)
        self.devices = {device.number: GatewayDevice(device, limits) for device in kit.devices}
        self._store = RoundStore(
            state / "rounds", self.bundles, {d.number: d.name for d in kit.devices}, limits.fold_every
        )
        self.rounds: dict[RoundKey, Round] = {}
        self.stopping = False
        self._worker = ThreadPoolExecutor(1, "fedali-gateway")
        self._news: asyncio.Future[None] | None = None
        self._ordering = asyncio.Lock()
        self._timers: dict[RoundKey, asyncio.Task[None]] = {}
        self._progress = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._started = time.monotonic()

    # the life of the process

    async def start(self) -> None:
        """Take up the rounds that are on the disk."""
        for round_ in await self.work(self._store.load):
            self.rounds[round_.key] = round_
            if not round_.closed:
                self._open(round_)
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End what waits, and leave the rest for the next process."""
        self.stopping = True
        self.tell()
        tasks = [*self._timers.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.work(lambda: None)
        self._worker.shutdown()

    async def work(self, job: Callable[[], _Result]) -> _Result:
        """Do ``job`` on the worker thread, to its end even if nobody waits any more."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, job))

    def tell(self) -> None:
        """Wake whoever waits for news: of a round, of a list, of the end."""
        self._progress.set()
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

    async def news(self, seconds: float) -> None:
        """Wait for news, ``seconds`` at most."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._news], timeout=seconds)

    # rounds

    @property
    def open_round(self) -> Round | None:
        """The round that devices are to answer, if there is one."""
        return next((each for each in self.rounds.values() if each.key in self._timers), None)

    @property
    def bundle(self) -> federation_pb2.Artifact | None:
        """What devices should hold: the bundle of the newest round."""
        newest = self._newest()
        if newest is None:
            return None
        return federation_pb2.Artifact(sha256=newest.model.sha256, size=newest.model.size)

    @property
    def largest_update(self) -> int:
        """Bytes that a device's update may have; of a bundle, while there is no training."""
        newest = self._newest()
        return LARGEST if newest is None else largest_update(newest.model.sizes)

    def _newest(self) -> Round | None:
        return max(self.rounds.values(), key=lambda each: each.sequence, default=None)

    def of_task(self, task: str) -> Round | None:
        """The round that a task belongs to, if it is one of the last."""
        return next((each for each in self.rounds.values() if each.key.task == task), None)

    def past_verdict(self, task: str, number: int, sha256: str) -> federation_pb2.UploadReply:
        """What became of a device's update for a round that is no longer kept."""
        counted = self._store.ledger.find(task, number)
        if counted is not None and counted.sha256 == sha256:
            return federation_pb2.UploadReply(verdict=COUNTED, received=counted.size)
        return federation_pb2.UploadReply(verdict=LATE, reason="the task is not of this round")

    async def do(self, order: relay_pb2.RoundOrder) -> bytes:
        """Do a round, or go on with it, or recall it: a serialised ``RoundOutcome``. Raises ``Refusal``."""
        try:
            check_order(order)
        except WireError as error:
            raise malformed(str(error)) from None
        key = RoundKey.of(order)
        # to its end, even if the node is killed meanwhile
        round_ = await asyncio.shield(asyncio.ensure_future(self._take(key, order)))
        while not round_.closed:
            if self.stopping:
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "the gateway is stopping")
            if self.rounds.get(key) is not round_:
                raise not_now(f"{key} was given up: another round was ordered")
            await self.news(60.0)
        with reporting(round_.outcome_path, "read"):
            return round_.outcome_path.read_bytes()

    async def _take(self, key: RoundKey, order: relay_pb2.RoundOrder) -> Round:
        """The round that is meant: the one that is here, or a new one."""
        async with self._ordering:
            round_ = self.rounds.get(key)
            if round_ is None:
                return await self._begin(key, order)
            if round_.content != content(order):
                raise not_now(f"{key} was ordered with another content: give the training another name")
            if not round_.closed and round_.wait_as(order):
                self._progress.set()
            return round_

    async def _begin(self, key: RoundKey, order: relay_pb2.RoundOrder) -> Round:
        if not self.bundles.held(order.bundle):
            raise not_now("the gateway does not hold the round's bundle: send it first")
        sequence = 1 + max((each.sequence for each in self.rounds.values()), default=0)
        try:
            round_ = await self.work(lambda: self._store.create(order, sequence))
        except WireError as error:
            raise malformed(str(error)) from None
        except FedaliError as error:
            raise not_now(str(error)) from None
        for old in list(self.rounds.values()):
            if old.key.run != key.run or old.key.round != key.round or not old.closed:
                await self._forget(old)
        self.rounds[key] = round_
        self._open(round_)
        return round_

    def _open(self, round_: Round) -> None:
        moved = round_.model.size + round_.state_size + round_.largest_update
        for device in self.devices.values():
            device.begin_round(moved)
        self._timers[round_.key] = asyncio.create_task(self._time(round_))
        log.info(
            "round open",
            run=round_.key.run,
            round=round_.key.round,
            kind=round_.key.kind,
            due=len(round_.due),
        )
        self.tell()

    async def _forget(self, old: Round) -> None:
        timer = self._timers.pop(old.key, None)
        if timer is not None:
            timer.cancel()
            log.warning("round given up", run=old.key.run, round=old.key.round, kind=old.key.kind)
        await self.work(lambda: self._store.remember(old))  # first: a device may ask at any moment
        old.given_up = True
        del self.rounds[old.key]
        self.tell()
        await self.work(lambda: self._store.remove(old))

    async def _time(self, round_: Round) -> None:
        """Close a round when all have answered, or its time is over."""
        while True:
            self._progress.clear()
            left = self.seconds_left(round_)
            if left <= 0 or not self._awaited(round_):
                break
            waiting = asyncio.ensure_future(self._progress.wait())
            try:
                await asyncio.wait([waiting], timeout=min(left, 3600.0 if round_.order.quorum else _LOOK))
            finally:
                waiting.cancel()
        for number in round_.waiting & self.devices.keys():
            self.devices[number].missed = not self.devices[number].seen_in_round
        while True:
            try:
                await self.work(lambda: round_.close(self._reports(round_)))
                break
            except FedaliError as error:
                log.error("cannot close a round, trying again", why=str(error))
                await asyncio.sleep(_AGAIN)
        self._timers.pop(round_.key, None)
        states = [answer.state for answer in round_.answers.values()]
        log.info(
            "round closed",
            run=round_.key.run,
            round=round_.key.round,
            kind=round_.key.kind,
            done=states.count(DONE),
            due=len(round_.due),
            seconds=round(round_.watch.elapsed(), 3),
        )
        self.tell()

    def seconds_left(self, round_: Round) -> float:
        """Until a round closes, if nobody answers any more."""
        there = [self.devices[number] for number in round_.waiting & self.devices.keys()]
        there = [device for device in there if not self.roster.revoked(device.entry)]
        if round_.order.quorum or any(device.online for device in there):
            return round_.seconds_left()
        begin = max(time.monotonic() - round_.watch.elapsed(), self._started)
        last = max((device.away_until(round_.order.grace_seconds, begin) for device in there), default=begin)
        return round_.seconds_left(round_.watch.elapsed() + last - time.monotonic())

    def _awaited(self, round_: Round) -> bool:
        """Whether some device may still answer."""
        there = (self.devices.get(number) for number in round_.waiting)
        return any(device is not None and not self.roster.revoked(device.entry) for device in there)

    def _reports(self, round_: Round) -> Iterable[relay_pb2.DeviceReport]:
        return [self._report(round_, number, name) for number, name in round_.due.items()]

    def _report(self, round_: Round, number: int, name: str) -> relay_pb2.DeviceReport:
        device, answer = self.devices.get(number), round_.answers.get(number)
        report = relay_pb2.DeviceReport(device=name, number=number)
        if answer is not None:
            for field in ("state", "reason", "seconds", "sent", "received", "samples", "weight"):
                setattr(report, field, getattr(answer, field))
            report.metrics.update(answer.metrics)
            return report
        if device is not None:
            report.sent, report.received = device.sent, device.received
        if number in round_.given:
            report.seconds = round_.watch.elapsed() - round_.given[number]
        if device is None:
            report.state, report.reason = "refused", "it is no device of this site any more"
        elif self.roster.revoked(device.entry):
            report.state, report.reason = "refused", "its certificate is revoked"
        elif number in round_.given or device.seen_in_round:
            report.state, report.reason = "late", "did not answer in time"
        else:
            report.state, report.reason = "offline", "was not heard of"
        return report

    # answers

    async def finish(
        self, round_: Round, device: GatewayDevice, sha256: str, peer: Mapping[str, object]
    ) -> federation_pb2.UploadReply:
        """Count an update that has arrived whole, or say why not."""
        number = device.number

        def count() -> federation_pb2.UploadReply:
            known = verdict(round_, number, sha256)
            if known is not None:
                return known
            data = round_.incoming.read(number, sha256)
            if hashlib.sha256(data).hexdigest() != sha256:
                return spoiled()
            self.roster.who(peer)  # it may have been revoked meanwhile
            try:
                prepared = round_.prepare(number, data)
            except (WireError, DataError) as error:
                return refuse(str(error))
            round_.count(number, sha256, len(data), prepared, device.sent, device.received)
            return federation_pb2.UploadReply(verdict=COUNTED, received=len(data))

        def spoiled() -> federation_pb2.UploadReply:
            round_.incoming.drop(number, sha256)
            device.spoiled += 1
            if device.spoiled >= _SPOILED:
                return refuse("the update is not what its SHA-256 says, again and again")
            return federation_pb2.UploadReply(
                verdict=INCOMPLETE, reason="the bytes are not what their SHA-256 says"
            )

        def refuse(why: str) -> federation_pb2.UploadReply:
            round_.incoming.drop(number, sha256)
            round_.refuse(number, why, device.sent, device.received)
            return federation_pb2.UploadReply(verdict=REFUSED, reason=why)

        reply = await self.work(count)
        self.answered(device, reply.verdict == REFUSED and reply.reason)
        return reply

    async def refuse(self, round_: Round, device: GatewayDevice, why: str) -> federation_pb2.UploadReply:
        """Go on without a device."""

        def write() -> federation_pb2.UploadReply:
            known = verdict(round_, device.number, "")
            if known is not None:
                return known
            round_.refuse(device.number, why, device.sent, device.received)
            return federation_pb2.UploadReply(verdict=REFUSED, reason=why)

        reply = await self.work(write)
        self.answered(device, reply.reason)
        return reply

    async def decline(self, round_: Round, device: GatewayDevice, why: str) -> None:
        """Go on without a device that said so; what it answered before stays."""

        def write() -> bool:
            taken = verdict(round_, device.number, "") is None
            if taken:
                round_.decline(device.number, why, device.sent, device.received)
            return taken

        taken = await self.work(write)
        if not taken:
            answer = round_.answers.get(device.number)
            what = "its answer stays" if answer is not None else "the round goes on without it as before"
            state = "none" if answer is None else answer.state
            log.info("a decline changes nothing", device=device.entry.name, answer=state, what=what, why=why)
        self.answered(device, why if taken else "")

    def answered(self, device: GatewayDevice, why: str | bool = "") -> None:
        """A device may have answered: look whether the round is over."""
        device.doing = "waiting"
        if why:
            log.warning("not counted", device=device.entry.name, why=why)
        self._progress.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            before = self.roster.number
            self.roster.look()
            if self.roster.number != before:
                self.tell()


def verdict(round_: Round, number: int, sha256: str) -> federation_pb2.UploadReply | None:
    """What is known of a device's update before it is looked at; None when it may count."""
    answer = round_.answers.get(number)
    if answer is not None and answer.state == DONE and sha256 == answer.sha256:
        return federation_pb2.UploadReply(verdict=COUNTED, received=answer.size)
    if number not in round_.due:
        return federation_pb2.UploadReply(verdict=REFUSED, reason="the round does not wait for this device")
    if answer is not None and answer.state == DONE:
        return federation_pb2.UploadReply(verdict=REFUSED, reason="another update of this device was counted")
    if answer is not None:
        return federation_pb2.UploadReply(verdict=REFUSED, reason=answer.reason or answer.state)
    if round_.closed or round_.given_up:
        return federation_pb2.UploadReply(verdict=LATE, reason="the round is over")
    return None
