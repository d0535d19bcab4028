"""Doing a task: from the shared state to the bytes of an update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.normalisation import channel_sums
from fedali.support.files import reporting
from fedali.v1 import federation_pb2
from fedali.wire.messages import ClientUpdate, decode_state, encode_update, largest_state
from fedali.wire.statistics import StatisticsUpdate, encode_statistics
from fedali.wire.tensors import Encoding
from fedali_client.client import EdgeClient
from fedali_client.compute.trainer import FitProgress
from fedali_client.exchange import shared_mask
from fedali_client.join.journal import Record
from fedali_client.join.samples import DataFiles
from fedali_client.join.signals import UnableError
from fedali_client.state.slots import Vector

Beat = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Done:
    """A task that was done.

    Args:
        update: serialised.
        lost: by its encoding; None for nothing.
        facts: for people.
    """

    update: bytes
    lost: Vector | None
    facts: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Of the update, in hex."""
        return hashlib.sha256(self.update).hexdigest()


class Worker:
    """Does tasks of one bundle.

    Args:
        client: of the bundle.
        bundle: SHA-256 of its file.
        files: this device's data.
    """

    def __init__(self, client: EdgeClient, bundle: bytes, files: DataFiles) -> None:
        self.client, self.bundle, self._files = client, bundle, files
        shared = int(np.count_nonzero(shared_mask(client.manifest)))
        self._sizes = shared, client.manifest.layouts.prototypes.size

    @property
    def largest_state(self) -> int:
        """Bytes that a shared state may have."""
        return largest_state(self._sizes)

    def took_part(self, task: federation_pb2.Task, last: Record) -> bool:
        """Whether the training that is here is that of ``task``'s round; ``last`` is the latest that was done."""
        same = (last.run, last.round, last.bundle) == (task.run, task.round, self.bundle.hex())
        return same and self.client.trained_for == last.identity

    def train(self, task: federation_pb2.Task, state: Path, owed: Vector | None, beat: Beat) -> Done:
        """Train from the shared state, or go on with it; what a kill interrupted ends with the bits of what was not.

        Args:
            task: of training.
            state: file of a serialised ``SharedState``.
            owed: what earlier encodings lost.
            beat: is told how far it is, 0..1, and may raise.
        """
        client, name = self.client, identity(task)
        x, y = self._files.training(client.manifest)
        words = (x, y, task.epochs, tuple(task.entropy))
        if not client.goes_on(name, *words):
            received = decode_state(_read(state), self._sizes)
            if client.unheard:  # of the round before: it missed the evaluation
                took_part = client.status().round + 1 == task.round
                client.hear(*received, task.influence, x, self._validation(), took_part=took_part)
            client.receive(*received, task.round, task.influence, task=name)

        def show(now: FitProgress) -> None:
            beat(now.step / now.total)

        report = client.fit_round(*words, progress=show)
        metrics = {"train_loss": report.loss, "train_accuracy": report.accuracy}
        if (
            client.manifest.answers_by != "gate"
        ):  # else it knows its answer when it hears of the model that the round made
            metrics |= self._answers()
        update = client.update(aligned=False)  # the gateway aligns, whoever sends
        message = ClientUpdate(task.id, self.bundle, update.samples, update.theta, update.prototypes, metrics)
        theta, _ = decode_state(_read(state), self._sizes)
        data, lost = encode_update(message, theta, _encoding(task), owed)
        seconds = {
            "resumed_at": report.resumed_at,
            "steps": report.steps,
            "seconds": round(report.seconds, 3),
        }
        return Done(data, lost, {"samples": update.samples, **seconds, "metrics": metrics})

    def add_up(self, task: federation_pb2.Task) -> Done:
        """What this device's training data add up to, channel by channel."""
        x, _ = self._files.training(self.client.manifest)
        data = encode_statistics(StatisticsUpdate(task.id, self.bundle, len(x), channel_sums(x)))
        return Done(data, None, {"samples": len(x)})

    def evaluate(self, task: federation_pb2.Task, state: Path, took_part: bool) -> Done:
        """How good the shared state is on this device's test data; and what it answers with that state, where a gate does and it ``took_part``."""
        client, files = self.client, self._files
        pair = files.read("test", client.manifest)
        own: dict[str, float] = {}
        if client.manifest.answers_by == "gate" and client.status().fits:
            x, _ = files.training(client.manifest)
            received = decode_state(_read(state), self._sizes)
            if client.unheard or took_part:
                client.hear(*received, task.influence, x, self._validation(), took_part=took_part)
            own = self._answers() if took_part else {}
        if pair is None:
            raise UnableError(
                "there are no test data here to evaluate the server's model on; --test names a file"
            )
        theta, prototypes = decode_state(_read(state), self._sizes)
        client.normalise_by(files.training(client.manifest)[0])
        found = client.evaluate_shared(theta, prototypes, task.influence, *pair)
        metrics = {"global": found.accuracy, "global_f1": found.macro_f1, **own}
        data, _ = encode_update(ClientUpdate(task.id, self.bundle, found.samples, metrics=metrics))
        return Done(data, None, {"samples": found.samples, "metrics": metrics})

    def _answers(self) -> dict[str, float]:
        """How good what this device answers is, on its own validation and test data."""
        metrics: dict[str, float] = {}
        for metric, part in (("validation", "validation"), ("personalisation", "test")):
            pair = self._files.read(part, self.client.manifest)
            if pair is not None:
                found = self.client.evaluate(*pair)
                metrics |= {metric: found.accuracy, f"{metric}_f1": found.macro_f1}
        return metrics

    def _validation(self) -> npt.NDArray[Any] | None:
        """Samples for the gate to look at besides those of training."""
        pair = self._files.read("validation", self.client.manifest)
        return None if pair is None else pair[0]


def _read(path: Path) -> bytes:
    """The bytes of a file."""
    with reporting(path, "read"):
        return path.read_bytes()


def kind_of(task: federation_pb2.Task) -> str:
    """What a task is called here, one of ``journal.KINDS``; of a kind that is not known, as if to evaluate."""
    kinds = {federation_pb2.TASK_KIND_TRAIN: "train", federation_pb2.TASK_KIND_STATISTICS: "statistics"}
    return kinds.get(task.kind, "evaluate")


def identity(task: federation_pb2.Task) -> str:
    """What a task is and all that it is to be done with, as 64 hex digits; how much time is left is no part of it."""
    same = federation_pb2.Task()
    same.CopyFrom(task)
    same.ClearField("seconds_left")
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()


def check(task: federation_pb2.Task) -> None:
    """Raise ``UnableError`` for a task that this version cannot do."""
    if task.kind in (federation_pb2.TASK_KIND_EVALUATE, federation_pb2.TASK_KIND_STATISTICS):
        return
    if task.kind != federation_pb2.TASK_KIND_TRAIN:
        raise UnableError(f"a task of kind {int(task.kind)} is not known here; update fedali on this device")
    if not task.epochs or not task.entropy or not 0 <= task.influence <= 1:
        raise UnableError(
            "a task to train lacks epochs or entropy, or has an influence that is not from 0 to 1"
        )
    _encoding(task)


def _encoding(task: federation_pb2.Task) -> Encoding:
    try:
        return Encoding(int(task.encoding))
    except ValueError:
        raise UnableError(
            f"encoding {int(task.encoding)} is not known here; update fedali on this device"
        ) from None
