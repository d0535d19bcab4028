"""The life of a joined device: enrol, wait for a task, do it, send what came out, for ever."""

from __future__ import annotations

import contextlib
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path

from fedali.bundle.file import LARGEST
from fedali.errors import (
    BundleError,
    CheckpointError,
    DataError,
    FedaliError,
    KitError,
    MisfitError,
    SettingsError,
    WireError,
)
from fedali.support.files import flush_folder, reporting, write_text
from fedali.support.memory import give_back
from fedali.v1 import federation_pb2
from fedali.version import __version__
from fedali.wire.kit import DeviceKit
from fedali.wire.messages import LARGEST_REASON
from fedali_client.client import EdgeClient
from fedali_client.join.artifacts import Artifacts, digest
from fedali_client.join.connection import GatewayConnection
from fedali_client.join.diagnosis import explain
from fedali_client.join.heart import Heart
from fedali_client.join.journal import COUNTED, Journal, Record
from fedali_client.join.report import Report
from fedali_client.join.samples import DataFiles
from fedali_client.join.signals import AwayError, GoneError, UnableError, UnwantedError
from fedali_client.join.transfers import send
from fedali_client.join.work import Worker, check, identity, kind_of

_WAIT = 30.0  # seconds of a long poll
_PAUSES = 0.25, 20.0  # seconds between attempts to connect: the first, twice as many each time, the most
_LOOK = 8  # attempts to connect between two looks at why they fail
_MOMENT = 0.5  # seconds, the least between two polls that brought nothing

OpenClient = Callable[[Path], EdgeClient]


class Session:
    """A device's part in a federation.

    Args:
        kit: of the device.
        folder: of what is kept of this federation.
        files: the device's data.
        open_client: verifies the bundle at a path and opens it.
        report: is told what happens.
        once: end after one training that the gateway answered.
    """

    def __init__(
        self,
        kit: DeviceKit,
        folder: Path,
        files: DataFiles,
        open_client: OpenClient,
        report: Report,
        *,
        once: bool = False,
    ) -> None:
        self._kit, self._folder, self._files, self._report = kit, folder, files, report
        self._open_client, self._once = open_client, once
        self._artifacts, self._journal = Artifacts(folder / "downloads"), Journal(folder)
        self._bundle, self._known = folder / "model.fedali", folder / "gateway"
        self._worker: Worker | None = None
        self._refused: dict[bytes, BundleError] = {}  # bundles, by their digests
        self._failures = 0  # to connect, one after another
        self._pauses = 0  # since the gateway last did something for this device
        self._heartbeat = 15.0

    def run(self) -> bool:
        """Take part until the process is stopped, or, with ``once``, one training was answered: whether it counted.

        Raises ``FedaliError`` for what a person has to mend.
        """
        try:
            while True:
                try:
                    with GatewayConnection(self._kit) as gateway:
                        return self._take_part(gateway)
                except AwayError as error:
                    self._be_away(error)
        finally:
            self._close()

    def _be_away(self, error: AwayError) -> None:
        if error.heard:
            self._report.away(str(error))
        elif self._failures % _LOOK == 1:  # not at once: a connection may just have broken
            cause = explain(self._kit, str(error))
            # A stranger at the first attempt ever is a wrong kit; later it may be a network that leads astray.
            if isinstance(cause, KitError) or (cause.stranger and not self._met):
                raise KitError(str(cause))
            self._report.away(str(cause))
        first, most = _PAUSES
        time.sleep(min(most, first * 2 ** min(self._pauses, 16)) * random.uniform(0.5, 1.0))
        self._failures, self._pauses = self._failures + 1, self._pauses + 1

    @property
    def _met(self) -> bool:
        """Whether this device has ever reached its gateway."""
        return self._known.exists() and self._known.read_text("utf-8").strip() == self._kit.gateway_name

    def _take_part(self, gateway: GatewayConnection) -> bool:
        train, test = self._files.counts()
        reply = gateway.enrol(_software(), train, test, digest(self._bundle))
        self._heartbeat, self._failures = reply.heartbeat_seconds, 0
        if not self._met:
            write_text(self._known, f"{self._kit.gateway_name}\n")
        self._report.joined(reply.federation, reply.device, gateway.address)
        for record in self._journal.waiting():
            update = self._journal.update(record)
            if update is None:  # a damaged card; the task is done again if it is given again
                self._journal.settle(record, "lost")
                continue
            counted = self._send(gateway, record, update)
            if self._once and record.kind == "train":
                return counted
        if reply.HasField("bundle"):
            try:
                self._hold(gateway, reply.bundle)
            except BundleError as error:
                self._report.trouble(str(error))
            except GoneError:
                pass
        while True:
            began = time.monotonic()
            task = gateway.next_task(_WAIT)
            self._pauses = 0
            if task is None:
                time.sleep(max(0.0, _MOMENT - (time.monotonic() - began)))
                continue
            counted_or_none = self._do(gateway, task)
            if counted_or_none is None:
                time.sleep(
                    _MOMENT
                )  # nothing came of it; whatever the gateway does, it is not asked in a frenzy
            elif self._once and task.kind == federation_pb2.TASK_KIND_TRAIN:
                return counted_or_none

    def _do(self, gateway: GatewayConnection, task: federation_pb2.Task) -> bool | None:
        """Do a task and send what came out: whether it counted, None when nothing was sent."""
        kind = kind_of(task)
        record = self._journal.latest(kind)
        update = None
        if record is not None and record.identity == identity(task):
            update = self._journal.update(record)
        try:
            if record is None or update is None:
                check(task)
                record, update = self._make(gateway, task, kind)
        except (GoneError, UnwantedError) as error:
            self._report.not_done(task.round, str(error), declined=False)
            return None
        except (AwayError, KitError):
            raise
        except FedaliError as error:
            gateway.decline(task.id, _reason(error, self._folder))
            self._report.not_done(task.round, str(error), declined=True)
            if isinstance(error, (DataError, SettingsError, CheckpointError)):  # it will not pass by itself
                raise
            return None
        return self._send(gateway, record, update)

    def _make(self, gateway: GatewayConnection, task: federation_pb2.Task, kind: str) -> tuple[Record, bytes]:
        worker = self._hold(gateway, task.bundle)
        name, bundle = "", worker.bundle.hex()
        if kind != "statistics":
            path = self._artifacts.fetch(gateway, task.state, "the round's state", worker.largest_state)
            self._artifacts.keep(task.state.sha256)
        with Heart(gateway, task.id, self._heartbeat) as heart:
            if kind == "statistics":
                done = worker.add_up(task)
            elif kind == "train":
                name, owed = self._journal.owed(task.run, bundle)
                done = worker.train(task, path, owed, heart.beat)
            else:
                last = self._journal.latest("train")
                took_part = last is not None and worker.took_part(task, last)
                done = worker.evaluate(task, path, took_part)
        record = Record(
            kind=kind,
            identity=identity(task),
            task=task.id,
            run=task.run,
            round=task.round,
            bundle=bundle,
            sha256=done.sha256,
            size=len(done.update),
            residual=name,
            facts=done.facts,
        )
        give_back()
        return self._journal.add(record, done.update, done.lost), done.update

    def _hold(self, gateway: GatewayConnection, artifact: federation_pb2.Artifact) -> Worker:
        """The worker for a bundle, which is fetched, verified and opened where it is another than before."""
        sha256 = artifact.sha256
        if self._worker is not None and self._worker.bundle == sha256:
            return self._worker
        if sha256 in self._refused:
            raise self._refused[sha256]
        held = digest(self._bundle) == sha256
        path = self._bundle if held else self._artifacts.fetch(gateway, artifact, "the bundle", LARGEST)
        self._close()
        try:
            client = self._open_client(path)
        except BundleError as error:
            self._refused[sha256] = error
            path.unlink(missing_ok=True)
            raise
        self._worker = Worker(client, sha256, self._files)
        give_back()
        if not held:
            with reporting(self._bundle):
                path.replace(self._bundle)
            flush_folder(self._folder)
        self._report.bundle(client.manifest.name, sha256.hex(), artifact.size, client.bundle.signed_by)
        return self._worker

    def _send(self, gateway: GatewayConnection, record: Record, update: bytes) -> bool:
        before = gateway.sent
        verdict, reason = send(gateway, record.task, update)
        self._journal.settle(record, verdict)
        self._pauses = 0
        self._report.answered(record, verdict, reason, gateway.sent - before)
        return verdict == COUNTED

    def _close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.client.close()


def _software() -> str:
    found = f"fedali-client {__version__}, Python {platform.python_version()}"
    with contextlib.suppress(ImportError):
        import onnxruntime

        found += f", onnxruntime {onnxruntime.__version__}"
    return found[:64]


def _reason(error: FedaliError, folder: Path) -> str:
    """Why a task is declined, without anything of this device's data or folders."""
    text = " ".join(str(error).split())
    if isinstance(error, MisfitError):
        text = error.public
    elif isinstance(error, DataError):
        text = "this device's data do not fit the model, or cannot be read"
    elif isinstance(error, CheckpointError):
        text = "this device's state is damaged"
    elif isinstance(error, BundleError):
        text = text.replace(f"{folder}/downloads/", "bundle ").replace(f"{folder}/", "bundle ")
    elif text.startswith("training diverged"):
        text = "training diverged on this device"
    elif "the disk is full" in text:
        text = "this device's disk is full"
    elif not isinstance(error, (UnableError, WireError)):
        text = "this device cannot do it now; it says why itself"
    return "".join(c for c in text if c.isprintable())[:LARGEST_REASON]
