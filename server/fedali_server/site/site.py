"""A site that holds data, as its Flower node asks it: what ``fedali_server.site.relay.RelayConnection`` is to a site with devices.

Its folder:

    bundles/                        see ``fedali_server.gateway.rounds.bundles``
    clients/<SHA-256>/              what clients of that bundle keep, see ``fedali_server.site.personal``
    outcomes/<kind>-<SHA-256>.pb    of the latest round of each kind, by what was ordered
    revoked.json                    the newest list of revoked certificates
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from fedali.bundle.file import parse_bundle, read_bundle
from fedali.bundle.keys import load_public
from fedali.engines.choose import EngineName, resolve
from fedali.errors import FedaliError, SettingsError
from fedali.support.files import flush_folder, reporting, write_bytes
from fedali.v1 import relay_pb2
from fedali.version import __version__
from fedali.wire.kit import SiteKit
from fedali_server.gateway.identity import Roster
from fedali_server.gateway.rounds.bundles import Bundles
from fedali_server.gateway.rounds.orders import NAMES, check_order, content, due_devices
from fedali_server.site.bundle import TrainedBundle, check_mode
from fedali_server.site.files import ClientFiles
from fedali_server.site.folder import open_folder
from fedali_server.site.given import GivenClient, open_function
from fedali_server.site.personal import PersonalParts
from fedali_server.site.rounds import DataRound, DueClient

log = structlog.get_logger("fedali.site")


class DataSite:
    """Does rounds with clients whose data are here; implements ``fedali_server.site.relay.RoundKeeper``.

    A client's round is a device's: it starts from the same numbers, takes samples in the same order, and is refused for the
    same reasons. What it trained stays in this process until it is in the sum: an order's ``encoding`` does not matter, and
    reports say that no bytes moved. ``seconds`` are looked at before each group of clients that the engine trains at once;
    ``quorum`` and ``grace_seconds`` are for devices that are away.

    Args:
        kit: of the site, whose devices the clients are.
        data: has a folder of files, or a file, for each device, see ``fedali_server.site.folder``; or names a function of the owner's.
        state: folder for what is kept; one process at a time may use it.
        engine: what trains.
        workers: threads or processes of the engine.
        settings: of ``--set``, where data are read otherwise than the bundle says.

    Raises ``FedaliError`` for data or a state that cannot be used; so do methods for a bundle or an order.
    """

    def __init__(
        self,
        kit: SiteKit,
        data: Path | str,
        state: Path,
        *,
        engine: EngineName = "auto",
        workers: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.kit, self._state = kit, state
        self._engine, self._workers = resolve(engine), workers
        names = [device.name for device in kit.devices]
        self._files: Mapping[str, ClientFiles | GivenClient]
        if isinstance(data, Path):
            self._files = open_folder(data, names, settings)
        elif settings:
            raise SettingsError(f"--set is for files, and --data {data} is a function: leave it out")
        else:
            self._files = open_function(data, names)
        self._trusted = load_public(kit.trusted_key)
        with reporting(state):
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._roster = Roster(kit.devices, self._trusted, kit.revoked, state / "revoked.json")
        self._bundles = Bundles(state / "bundles", self._trusted)
        self._bundle: TrainedBundle | None = None
        self._now: DataRound | None = None
        self._counts: dict[
            str, tuple[object, int]
        ] = {}  # of training samples, by client, and what they were counted in

    def status(self) -> relay_pb2.SiteStatus:
        """Who is there; from any thread."""
        found, now = relay_pb2.SiteStatus(federation=self.kit.federation, site=self.kit.name), self._now
        if now is not None:
            found.run, found.round, found.kind = now.order.run, now.order.round, now.order.kind
            found.seconds_left = now.seconds_left
        for device in self.kit.devices:
            there = self._files[device.name].there
            found.devices.add(
                device=device.name,
                number=device.number,
                online=there,
                seen_seconds=0.0 if there else -1.0,
                doing="in this round" if now is not None and device.number in now.at_work else "waiting",
                software=f"fedali {__version__}, engine {self._engine}",
                revoked=self._roster.revoked(device),
                train_samples=self._count(device.name) if there else 0,
            )
        return found

    def _count(self, name: str) -> int:
        """Training samples of a client, as far as they were counted; they are where a bundle is here that says what they are."""
        files, bundle = self._files[name], self._bundle
        stamp, count = self._counts.get(name, (None, 0))
        if bundle is None or self._now is not None:
            return count
        try:
            now = bundle.rounds.sha256, files.stamp()
            if now != stamp:
                count = len(files.train(bundle.manifest)[0])
                self._counts[name] = now, count
        except (FedaliError, OSError):
            return 0
        return count

    def has_bundle(self, sha256: bytes) -> bool:
        """Whether a bundle is here, and can be trained."""
        try:
            return self._bundles.held(sha256) and self._open(sha256) is not None
        except FedaliError:
            return False  # whoever then sends it hears why

    def put_bundle(self, bundle: bytes) -> None:
        """Keep a bundle. Raises ``FedaliError`` unless the federation's key signed it, and it can be trained here."""
        check_mode(parse_bundle(bundle, [self._trusted]))
        self._open(self._bundles.put(bundle))

    def revoke(self, revoked: bytes, signature: bytes) -> int:
        """Take up a newer list of certificates that are not to be trusted any more; the number of the list in force."""
        return self._roster.replace(revoked, signature)

    def round(self, order: relay_pb2.RoundOrder) -> relay_pb2.RoundOutcome:
        """Do a round, or recall it: what was ordered before has the outcome that it had."""
        check_order(order)
        kind = NAMES[order.kind]
        path = self._state / "outcomes" / f"{kind}-{content(order).hex()}.pb"
        if path.exists():
            with reporting(path, "read"):
                return relay_pb2.RoundOutcome.FromString(path.read_bytes())
        if not self._bundles.held(order.bundle):
            raise FedaliError("this site does not hold the round's bundle: send it first")
        self._now = now = self._begin(order)
        try:
            outcome = {"train": now.train, "evaluate": now.evaluate, "statistics": now.statistics}[kind]()
        finally:
            self._now = None
        for old in path.parent.glob(f"{kind}-*.pb"):
            old.unlink()
        write_bytes(path, outcome.SerializeToString())
        flush_folder(path.parent)
        done = sum(report.state == "done" for report in outcome.devices)
        facts = {"done": done, "due": len(outcome.devices), "seconds": round(time.monotonic() - now.begun, 3)}
        log.info("round closed", run=order.run, round=order.round, kind=kind, **facts)
        return outcome

    def _open(self, sha256: bytes) -> TrainedBundle:
        if self._bundle is None or self._bundle.rounds.sha256 != sha256:
            bundle = read_bundle(self._bundles.path(sha256), [self._trusted])
            found = TrainedBundle(bundle, self._bundles.model(sha256))
            found.engine(self._engine, 1, self._workers)  # compiled and cached now, not in a round's time
            self._bundle = found
        return self._bundle

    def _begin(self, order: relay_pb2.RoundOrder) -> DataRound:
        begun, devices = time.monotonic(), {device.number: device for device in self.kit.devices}
        bundle = self._open(order.bundle)
        self._roster.look()
        due = {
            number: DueClient(name, self._files[name], self._roster.revoked(devices[number]))
            for number, name in due_devices(
                order, {number: device.name for number, device in devices.items()}
            ).items()
        }
        self._prune(order.bundle)
        model, folder = bundle.rounds, self._state / "clients" / order.bundle.hex()
        personal = PersonalParts(folder, bundle.method, model.layouts)
        engine = bundle.engine(self._engine, max(1, order.epochs), self._workers)
        return DataRound(order, bundle, engine, personal, due, begun)

    def _prune(self, used: bytes) -> None:
        """Forget old bundles, and what clients of them kept."""
        self._bundles.prune(used)
        for folder in (self._state / "clients").glob("*"):
            if not (self._bundles.folder / f"{folder.name}.fedali").exists():
                shutil.rmtree(folder, ignore_errors=True)
