"""The rounds on the disk: those of the newest round's number, and no older ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog

from fedali.errors import CheckpointError, FedaliError
from fedali.support.files import flush_folder, reporting
from fedali.v1 import relay_pb2
from fedali_server.gateway.rounds.bundles import Bundles
from fedali_server.gateway.rounds.ledger import Ledger
from fedali_server.gateway.rounds.orders import NAMES, STATISTICS, RoundKey, due_devices
from fedali_server.gateway.rounds.round import Round
from fedali_server.gateway.rounds.statistics import StatisticsRound

log = structlog.get_logger("fedali.gateway")


class RoundStore:
    """Folders of rounds in ``folder``, for the site's devices ``known``, names by number; all methods run on the worker thread."""

    def __init__(self, folder: Path, bundles: Bundles, known: Mapping[int, str], fold_every: int) -> None:
        self.folder, self._bundles, self._known, self._fold_every = folder, bundles, known, fold_every
        self.ledger = Ledger(folder.with_name("counted.json"))

    def create(self, order: relay_pb2.RoundOrder, sequence: int) -> Round:
        """A new round, durably. Raises ``WireError`` for an order that does not fit, ``FedaliError`` from the disk."""
        folder = self.folder / RoundKey.of(order).folder
        model = self._bundles.model(order.bundle)
        due = due_devices(order, self._known)
        if folder.exists():
            _remove(folder)  # it could not be read when the gateway started
        Round.create(folder, order, sequence, model, due)
        self._bundles.prune(order.bundle)
        return self._open(folder)

    def remember(self, round_: Round) -> None:
        """Keep what counted in a closed round that is going to be removed, as far as the disk has room for it."""
        try:
            self.ledger.add(round_.counted() if round_.closed else {})
        except FedaliError as error:
            log.error("what counted in a round is not kept", round=str(round_.key), why=str(error))

    def remove(self, round_: Round) -> None:
        """Forget a round."""
        round_.journal.close()
        _remove(round_.folder)

    def load(self) -> list[Round]:
        """What an earlier process left, oldest first; what cannot be read is set aside."""
        found: list[Round] = []
        with reporting(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for folder in sorted(self.folder.glob("*/*")):
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                found.append(self._open(folder))
            except (FedaliError, ValueError, KeyError) as error:
                log.error("a round is lost: its files cannot be read", folder=str(folder), why=str(error))
        found.sort(key=lambda each: each.sequence)
        for round_ in found[:-1]:
            same = (round_.key.run, round_.key.round) == (found[-1].key.run, found[-1].key.round)
            if not (same and round_.closed):
                self.remember(round_)
                self.remove(round_)
                found = [each for each in found if each is not round_]
        return found

    def _open(self, folder: Path) -> Round:
        kind = StatisticsRound if folder.name.endswith(f"-{NAMES[STATISTICS]}") else Round
        round_ = kind(folder, self._bundles, self._fold_every)
        if self.folder / round_.key.folder != folder:
            raise CheckpointError(f"{folder} is not where {round_.key} belongs")
        return round_


def _remove(folder: Path) -> None:
    """A crash on the way leaves a name that is removed at the next start."""
    gone = folder.with_name(f".{folder.name}.gone")
    with reporting(folder, "remove"):
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        flush_folder(folder.parent)
        shutil.rmtree(gone, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
