"""Samples of all clients of a federation, ready for an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import overload

import numpy as np
import numpy.typing as npt

from fedali.data import Federation
from fedali.data.federation import ClientData
from fedali.data.normalisation import Normalisation
from fedali.engines.base import Samples
from fedali.tasks import CLASSIFICATION, Task

_AT_HAND = 4096  # clients of which samples stay made: what a round trains, and more


class Cohort:
    """Training, validation and test samples of every client, made when they are asked for: a client that never trains costs nothing; and what is
    learnt of them.
    """

    def __init__(self, federation: Federation, task: Task = CLASSIFICATION) -> None:
        self.task, self.targets = task, federation.targets
        self.classes = len(federation.class_names)
        clients, statistics = federation.clients, federation.normalisation

        def of(part: Callable[[ClientData, Normalisation], Samples]) -> Sequence[Samples]:
            return _Made(len(clients), lambda place: part(clients[place], statistics[place]))

        self.train = of(lambda c, n: Samples(c.x_train, c.y_train, n))
        self.validation = of(lambda c, n: Samples(c.x_validation, c.y_validation, n))
        self.test = of(lambda c, n: Samples(c.x_test, c.y_test, n))
        self._clients = clients

    def __len__(self) -> int:
        return len(self._clients)

    def name(self, client: int) -> str:
        """What a client is called."""
        return self._clients[client].name

    def sizes(self) -> npt.NDArray[np.int64]:
        """Training samples of each client [n]."""
        return np.fromiter((len(client.y_train) for client in self._clients), np.int64, len(self))


class _Made(Sequence[Samples]):
    """A sequence whose items are made when they are asked for; the last ones stay."""

    def __init__(self, length: int, make: Callable[[int], Samples]) -> None:
        self._length, self._item = length, lru_cache(_AT_HAND)(make)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Samples: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Samples]: ...
    def __getitem__(self, place: int | slice) -> Samples | Sequence[Samples]:
        """One client's, or several clients'."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(place)
        return self._item(int(place) % self._length)
