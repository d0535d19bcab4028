"""A round of statistics: what devices' training data add up to, kept as durably as a training's sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fedali.data.normalisation import ChannelSums, add_up
from fedali.errors import CheckpointError, WireError
from fedali.support.files import atomic
from fedali.v1 import relay_pb2
from fedali.wire.statistics import StatisticsUpdate, decode_statistics, largest_statistics, to_message
from fedali_server.gateway.rounds.metrics import checked
from fedali_server.gateway.rounds.round import Round

_ARRAYS = ("members", "counts", "sums", "squares")


class StatisticsSums:
    """Sums of clients by their numbers; few numbers each, so that all are kept until they are added up exactly."""

    def __init__(self) -> None:
        self._sums: dict[int, ChannelSums] = {}

    @property
    def members(self) -> set[int]:
        """Whose they are."""
        return set(self._sums)

    def add(self, number: int, sums: ChannelSums) -> None:
        """Add those of client ``number``, once."""
        if number in self._sums:
            raise ValueError(f"client {number} is in the sum already")
        self._sums[number] = sums

    def total(self) -> ChannelSums | None:
        """All together; None where there are none."""
        return add_up(list(self._sums.values())) if self._sums else None

    def save(self, path: Path) -> None:
        """Write all to ``path``, atomically and durably."""
        parts = self._sums.values()
        columns = (
            np.array(list(self._sums), np.int64),
            np.array([part.count for part in parts], np.int64),
            np.array([part.sums for part in parts]),
            np.array([part.squares for part in parts]),
        )
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **dict(zip(_ARRAYS, columns, strict=True)))  # type: ignore[arg-type]  # as in sums.py

    @classmethod
    def load(cls, path: Path) -> StatisticsSums:
        """What ``save`` wrote; ``CheckpointError`` for a file that is damaged."""
        found = cls()
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                rows = zip(*(arrays[name] for name in _ARRAYS), strict=True)
                for number, count, sums, squares in rows:
                    found.add(int(number), ChannelSums(int(count), sums, squares))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
        return found


class StatisticsRound(Round):
    """A ``Round`` whose updates are sums, and whose outcome is the sum of those."""

    new_sums = StatisticsSums

    @property
    def largest_update(self) -> int:
        """Bytes."""
        return largest_statistics(self.model.input_shape)

    def prepare(self, number: int, data: bytes) -> tuple[StatisticsUpdate, ChannelSums]:  # type: ignore[override]
        """What an update of device ``number`` adds. Raises ``WireError`` or ``DataError`` saying why it cannot be used."""
        update = decode_statistics(data, self.model.input_shape)
        if update.task != self.key.task:
            raise WireError("the update is for another task")
        if update.bundle != self.model.sha256:
            raise WireError("the update is of another bundle")
        self._bounds.check_samples(update.samples)
        weight = self._weights.of(number, update.samples)
        update = replace(update, metrics=checked(self.key.kind, update.metrics))
        return update, weighed(update.sums, update.samples, weight)

    def _outcome(self, reports: Iterable[relay_pb2.DeviceReport]) -> relay_pb2.RoundOutcome:
        total: Any = self.sums.total()
        statistics = None if total is None else to_message(total)
        return relay_pb2.RoundOutcome(devices=reports, statistics=statistics)


def weighed(sums: ChannelSums, samples: int, weight: int) -> ChannelSums:
    """Sums of ``samples`` as if they were of ``weight``, with the same mean and deviation; the same object where those are equal."""
    if weight >= samples:
        return sums
    share = weight / samples
    return ChannelSums(sums.count // samples * weight, sums.sums * share, sums.squares * share)
