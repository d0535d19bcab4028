"""What a site remembers of its clients between rounds: their personal parameters and local prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.methods import Layouts, Method, SharedState, personal_indices

Vector = npt.NDArray[np.floating[Any]]


class ClientStore:
    """Personal state of every client, in memory; a client that never trained starts from the server's state."""

    def __init__(self, method: Method, layouts: Layouts) -> None:
        self._where = personal_indices(method, layouts.parameters)
        self._keeps_prototypes = method.keeps_local_prototypes and layouts.prototypes.size > 0
        self._personal: dict[int, Vector] = {}
        self._prototypes: dict[int, Vector] = {}

    def compose(self, client: int, shared: SharedState) -> tuple[Vector, Vector]:
        """Theta [P] and local prototypes [L] a client starts a round from."""
        theta = np.array(shared.theta, np.float32)
        if client in self._personal:
            theta[self._where] = self._personal[client]
        return theta, np.array(self._prototypes.get(client, shared.prototypes), np.float32)

    def remember(self, client: int, theta: Vector, local_prototypes: Vector) -> None:
        """Keep what stays with the client of a trained model."""
        if self._where.size:
            self._personal[client] = theta[self._where].copy()
        if self._keeps_prototypes:
            self._prototypes[client] = local_prototypes.copy()

    def tensors(self) -> dict[str, Vector]:
        """Everything remembered, for a checkpoint."""
        kinds = {"personal": self._personal, "local_prototypes": self._prototypes}
        return {f"{kind}/{c}": kept[c] for kind, kept in kinds.items() for c in sorted(kept)}

    def restore(self, tensors: Mapping[str, Vector]) -> None:
        """Take up what ``tensors`` wrote; other names are left alone."""
        self._personal, self._prototypes = {}, {}
        for name, value in tensors.items():
            kind, _, client = name.partition("/")
            if kind == "personal":
                self._personal[int(client)] = value
            elif kind == "local_prototypes":
                self._prototypes[int(client)] = value
