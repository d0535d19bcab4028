"""A round: its order, its journal, what devices answered, and the sum. All of it is on the disk before anybody is told.

Files of a round, in its folder:

- ``order.pb``, ``order.json``: what was ordered, and when; ``state.pb``: what devices download.
- ``incoming/NUMBER-SHA256``: uploads, whole or in part.
- ``journal.jsonl``: a line for each answer. An update counts once its line is on the disk; its file is there before.
- ``sums.npz``: the sum of updates whose files are gone.
- ``outcome.pb``: what the site's node gets. The round is over once it is there.

Methods are called by one thread at a time, except for those that say so.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from fedali.errors import CheckpointError, DataError, FedaliError, WireError
from fedali.support.files import flush_folder, reporting, write_bytes
from fedali.uploads import SharedState, Trained, Upload, make_upload
from fedali.v1 import relay_pb2
from fedali.wire.messages import ClientUpdate, decode_update, encode_state, largest_update
from fedali_server.gateway.rounds.bounds import Bounds
from fedali_server.gateway.rounds.bundles import Bundles, RoundModel
from fedali_server.gateway.rounds.elapsed import Stopwatch
from fedali_server.gateway.rounds.incoming import Incoming
from fedali_server.gateway.rounds.journal import Journal
from fedali_server.gateway.rounds.ledger import Counted
from fedali_server.gateway.rounds.metrics import checked
from fedali_server.gateway.rounds.orders import (
    NOT_CONTENT,
    TRAIN,
    RoundKey,
    content,
    shared_state,
    weights_of,
)
from fedali_server.gateway.rounds.sums import RoundSums, check_fits

log = structlog.get_logger("fedali.gateway")

Prepared = tuple[ClientUpdate, Upload]

DONE, DECLINED, REFUSED = "done", "declined", "refused"


@dataclass(frozen=True)
class Answer:
    """A device's last word in a round.

    Args:
        state: ``"done"``, ``"declined"`` or ``"refused"``.
        at: seconds from the round's begin.
        sha256, size: of the update: hex digits, and bytes; empty and 0 without one.
        seconds: from taking the task.
        sent, received: bytes to and from the device.
        samples: that it says it has.
        weight: samples that it counted as; 0 in journals of 0.1.0, for ``samples``.
    """

    state: str
    at: float = 0.0
    sha256: str = ""
    size: int = 0
    reason: str = ""
    samples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    sent: int = 0
    received: int = 0
    weight: int = 0


class Round:
    """One round, open until it is ``closed``, its outcome being on the disk, or ``given_up`` for another."""

    new_sums: type[Any] = RoundSums

    def __init__(self, folder: Path, bundles: Bundles, fold_every: int) -> None:
        """Take up the round in ``folder``, as ``create`` made it and as far as it went."""
        self.folder, self._fold_every = folder, fold_every
        with reporting(folder, "read"):
            order = relay_pb2.RoundOrder.FromString((folder / "order.pb").read_bytes())
            plain = json.loads((folder / "order.json").read_text())
        self.key, self.sequence, self.content = RoundKey.of(order), int(plain["sequence"]), content(order)
        self.model: RoundModel = bundles.model(order.bundle)
        self.shared: SharedState = shared_state(order, self.model)
        self._bounds, self._weights = Bounds.of(order, self.shared, self.model), weights_of(order)
        self.due = {int(number): str(name) for number, name in plain["due"].items()}
        for heavy in ("theta", "prototypes"):
            order.ClearField(heavy)
        self.order = order
        self.state_path = folder / "state.pb"
        with reporting(self.state_path, "read"):
            state = self.state_path.read_bytes()
        self.state_sha256, self.state_size = hashlib.sha256(state).digest(), len(state)
        self.journal = Journal(folder / "journal.jsonl")
        self.incoming = Incoming(folder / "incoming")
        self.answers: dict[int, Answer] = {}
        self.closed = self.outcome_path.exists()
        self.given_up = False
        self.given: dict[int, float] = {}
        self.sums = self.new_sums()
        self._files: list[tuple[int, str]] = []  # of updates in the sum that no snapshot holds
        last = self._replay()
        self.watch = Stopwatch.resume(float(plain["start"]), str(plain["boot"]), last)

    @staticmethod
    def create(
        folder: Path, order: relay_pb2.RoundOrder, sequence: int, model: RoundModel, due: Mapping[int, str]
    ) -> None:
        """Make the folder of a new round, whole or not at all. Raises ``WireError`` for an order that does not fit.

        Args:
            folder: that is not there yet.
            order: that was checked.
            sequence: more than that of earlier rounds.
            model: of the order's bundle.
            due: names by number of the devices that it waits for.
        """
        shared = shared_state(order, model)
        watch = Stopwatch.begin()
        plain = {"sequence": sequence, "start": watch.start, "boot": watch.boot, "due": dict(due)}
        making = folder.with_name(f".{folder.name}.new")
        with reporting(making):
            shutil.rmtree(making, ignore_errors=True)
            (making / "incoming").mkdir(parents=True)
            write_bytes(making / "order.pb", order.SerializeToString(deterministic=True))
            write_bytes(making / "order.json", json.dumps(plain).encode())
            write_bytes(making / "state.pb", encode_state(shared.theta[model.shared], shared.prototypes))
            flush_folder(making)
            making.rename(folder)
            flush_folder(folder.parent)
            flush_folder(folder.parent.parent)

    @property
    def outcome_path(self) -> Path:
        """A serialised ``RoundOutcome``."""
        return self.folder / "outcome.pb"

    @property
    def largest_update(self) -> int:
        """Bytes."""
        return largest_update(self.model.sizes) if self.key.kind == TRAIN else largest_update((0, 0))

    @property
    def waiting(self) -> set[int]:
        """Devices that are due and have not answered; from any thread."""
        return self.due.keys() - self.answers.keys()

    def seconds_left(self, away_until: float = math.inf) -> float:
        """Until the round closes, if nobody answers any more; from any thread.

        ``away_until`` is until when, in seconds from its begin, devices that are away are waited for; infinity while one that has to answer is there.
        """
        end, order = self.order.seconds, self.order
        done = sorted(answer.at for answer in list(self.answers.values()) if answer.state == DONE)
        if self.answers and not order.quorum:
            end = min(end, away_until)
        needed = max(1, math.ceil(order.quorum * len(self.due)))
        if order.quorum and len(done) >= needed:
            end = min(end, done[needed - 1] + order.grace_seconds)
        return max(0.0, end - self.watch.elapsed())

    def wait_as(self, order: relay_pb2.RoundOrder) -> bool:
        """Wait as another order of the same round says, until this process ends; whether that is a change."""
        changed = [name for name in NOT_CONTENT if getattr(order, name) != getattr(self.order, name)]
        for name in changed:
            setattr(self.order, name, getattr(order, name))
        return bool(changed)

    def give(self, number: int) -> None:
        """Remember that a device took its task; from any thread."""
        if number not in self.given:
            self.given[number] = self.watch.elapsed()
            self.journal.note({"given": number, "at": self.given[number]})

    def refuse(self, number: int, reason: str, sent: int = 0, received: int = 0) -> None:
        """Go on without a device whose update cannot be used."""
        self._answer(number, Answer(REFUSED, reason=reason, sent=sent, received=received))

    def decline(self, number: int, reason: str, sent: int = 0, received: int = 0) -> None:
        """Go on without a device that cannot do its task."""
        self._answer(number, Answer(DECLINED, reason=reason, sent=sent, received=received))

    def prepare(self, number: int, data: bytes) -> Prepared:
        """What an update of device ``number`` adds. Raises ``WireError`` or ``DataError`` saying why it cannot be used."""
        sizes = self.model.sizes
        update = decode_update(data, sizes, self._bounds.theta, largest=self.largest_update)
        if update.task != self.key.task:
            raise WireError("the update is for another task")
        if update.bundle != self.model.sha256:
            raise WireError("the update is of another bundle")
        self._bounds.check_samples(update.samples)
        if update.theta is None or update.prototypes is None:
            if self.key.kind == TRAIN:
                raise WireError("the update has no tensors, and the task was to train")
            return self._sound(update), Upload(clients=1)
        if self.key.kind != TRAIN:
            raise WireError("the update has tensors, and the task was to evaluate")
        self._bounds.check(update.theta, update.prototypes)
        weight = self._weights.of(number, update.samples)
        return self._sound(update), self._upload(update.theta, update.prototypes, weight)

    def _sound(self, update: ClientUpdate) -> ClientUpdate:
        return replace(update, metrics=checked(self.key.kind, update.metrics, late=self.model.late))

    def _upload(self, theta: Any, prototypes: Any, samples: int) -> Upload:
        model, whole = self.model, theta
        if theta.size != model.layouts.parameters.size:
            whole = self.shared.theta.copy()
            whole[model.shared] = theta
        trained = Trained(whole, prototypes, samples)
        try:
            upload = make_upload(
                trained, self.shared, model.shared, model.prototypes, model.layouts.prototypes
            )
        except DataError as error:
            raise DataError(f"{error}: did training diverge?") from None
        except FedaliError as error:
            raise DataError(f"the update cannot be aligned: {error}") from None
        return check_fits(upload, len(self.due))

    def count(
        self, number: int, sha256: str, size: int, prepared: Prepared, sent: int, received: int
    ) -> None:
        """Add an update, whose file is durable, once and for all."""
        update, upload = prepared
        weight = self._weights.of(number, update.samples)
        answer = Answer(
            state=DONE,
            sha256=sha256,
            size=size,
            reason=bounded(update.samples, weight),
            samples=update.samples,
            weight=weight,
            metrics=dict(update.metrics),
            sent=sent,
            received=received,
        )
        self._answer(number, answer)
        self._fold(number, sha256, upload)

    def counted(self) -> dict[int, Counted]:
        """The updates of a training that counted, by their devices' numbers."""
        if self.key.kind != TRAIN:
            return {}
        answers = self.answers.items()
        return {
            number: Counted(self.key.task, answer.sha256, answer.size)
            for number, answer in answers
            if answer.state == DONE
        }

    def close(self, reports: Iterable[relay_pb2.DeviceReport]) -> None:
        """Write the outcome, and forget what it was made of."""
        if not self.closed:
            write_bytes(self.outcome_path, self._outcome(reports).SerializeToString())
            flush_folder(self.folder)
            self.closed = True
        self.release()

    def release(self) -> None:
        """Forget what a closed round, or one that was given up, was made of."""
        self.sums = self.new_sums()
        self.incoming.clear()
        (self.folder / "sums.npz").unlink(missing_ok=True)

    def _outcome(self, reports: Iterable[relay_pb2.DeviceReport]) -> relay_pb2.RoundOutcome:
        upload = self.sums.upload(len(self.due)).to_bytes() if self.key.kind == TRAIN else b""
        return relay_pb2.RoundOutcome(devices=reports, upload=upload)

    def _answer(self, number: int, answer: Answer) -> None:
        if number in self.answers or self.closed:
            raise ValueError(f"device {number} has answered, or the round is over")
        now = self.watch.elapsed()
        answer = replace(answer, at=now, seconds=max(0.0, now - self.given.get(number, 0.0)))
        self.journal.commit({"answer": number, **asdict(answer)})
        self.answers[number] = answer

    def _fold(self, number: int, sha256: str, upload: Upload) -> None:
        self.sums.add(number, upload)
        self._files.append((number, sha256))
        if len(self._files) >= self._fold_every:
            self._snapshot()

    def _snapshot(self) -> None:
        """Make files of updates needless: their sum is on the disk."""
        try:
            self.sums.save(self.folder / "sums.npz")
            flush_folder(self.folder)
        except FedaliError as error:  # the files are there as well; the next update tries again
            log.error("no snapshot of the sum", why=str(error))
            return
        for number, sha256 in self._files:
            self.incoming.drop(number, sha256)
        self._files.clear()

    def _replay(self) -> float:
        """Read the journal, and sum again what was counted since the last snapshot: the last time that it tells of."""
        last = 0.0
        try:
            for record in self.journal.records:
                last = max(last, float(record["at"]))
                if "given" in record:
                    self.given[int(record["given"])] = float(record["at"])
                else:
                    number = int(record.pop("answer"))
                    self.answers[number] = Answer(**record)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.journal.path} holds something else than answers: {error}") from None
        if self.closed:
            self.release()
            return last
        if (self.folder / "sums.npz").exists():
            self.sums = self.new_sums.load(self.folder / "sums.npz")
        for number, answer in self.answers.items():
            if answer.state == DONE and number in self.sums.members:
                self.incoming.drop(number, answer.sha256)
            elif answer.state == DONE:
                data = self.incoming.read(number, answer.sha256)
                if hashlib.sha256(data).hexdigest() != answer.sha256:
                    raise CheckpointError(f"{self.incoming.path(number, answer.sha256)} is damaged")
                self._fold(number, answer.sha256, self.prepare(number, data)[1])
        return last


def bounded(samples: int, weight: int) -> str:
    """What a report says of a client that counts as less than it says; nothing of others."""
    return "" if weight >= samples else f"it says {samples} samples and counts as {weight}"
