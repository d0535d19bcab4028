"""What clients keep between rounds, in a folder: a table on disk after each round says which records hold.

    clients.f32, clients.json   the records, see ``fedali.cohort.store``
    00000007.safetensors        after the seventh training: the table, run and round, and clients' own normalisations
    trained/                    where a gate answers: what was trained in the latest round, see ``fedali_server.site.gate``

A round is trained from the newest table that is older than it, whatever it is of: a client's personal part outlives a run,
as a device's does. The one that it was trained from is kept until the next round begins. So a round that is asked for again
gives the same bits, whoever was killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import structlog
from safetensors.numpy import save

from fedali.cohort.store import ClientStore, Table
from fedali.cohort.tensorfile import read_tensors
from fedali.data.normalisation import Normalisation
from fedali.engines.base import Vector
from fedali.errors import CheckpointError
from fedali.methods import Layouts, Method, SharedState
from fedali.support.files import flush_folder, reporting, write_bytes

log = structlog.get_logger("fedali.site")
_CLIENTS, _MEAN, _STD = (f"normalisation.{name}" for name in ("clients", "mean", "std"))


class PersonalParts:
    """Personal parts of the clients of one bundle.

    Args:
        folder: for them alone.
        method: what is personal.
        layouts: of the model.
    """

    def __init__(self, folder: Path, method: Method, layouts: Layouts) -> None:
        with reporting(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self.trained = folder, folder / "trained"
        self._store = ClientStore(method, layouts, folder / "clients.f32")
        self.normalisations: dict[int, Normalisation] = {}
        self._next = 1

    def look(self) -> None:
        """Take up clients' normalisations from the newest table."""
        tables = self._tables()
        self.normalisations = _read_normalisations(read_tensors(tables[-1])[0]) if tables else {}

    def begin(self, run: str, round_: int) -> None:
        """Go back to what held before a round. Tables of this round or later ones are of a training that was not to be."""
        tables, dropped = self._tables(), 0
        while tables and self._of(tables[-1], run, round_):
            tables.pop().unlink()
            dropped += 1
        if dropped and not tables:
            log.warning("personal parts begin anew: none is older than the round", run=run, round=round_)
        table: Table = read_tensors(tables[-1])[0] if tables else {}
        self._store.restore(table)
        self.normalisations = _read_normalisations(table)
        for path in tables[:-1]:
            path.unlink()  # records of it are overwritten from here on
        flush_folder(self._folder)
        self._next = int(tables[-1].stem) + 1 if tables else 1

    def __contains__(self, client: int) -> bool:
        return client in self._store

    def compose(self, client: int, shared: SharedState) -> tuple[Vector, Vector]:
        """Theta [P] and local prototypes [L] that a client which keeps something starts from; ``CheckpointError`` if it is damaged."""
        return self._store.compose(client, shared)

    def remember(self, client: int, theta: Vector, local_prototypes: Vector) -> None:
        """Keep what stays with the client of a trained model."""
        self._store.remember(client, theta, local_prototypes)

    def commit(self, run: str, round_: int) -> None:
        """Put what was remembered in force: a table on the disk."""
        table = {**self._store.checkpoint(), **_normalisation_table(self.normalisations)}
        facts = json.dumps({"run": run, "round": str(round_)})
        write_bytes(self._folder / f"{self._next:08d}.safetensors", save(table, {"fedali": facts}))
        flush_folder(self._folder)

    def _tables(self) -> list[Path]:
        """From the oldest on."""
        return sorted(self._folder.glob("[0-9]*.safetensors"))

    def _of(self, path: Path, run: str, round_: int) -> bool:
        facts = read_tensors(path)[1]
        try:
            return facts["run"] == run and int(facts["round"]) >= round_
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{path} is no table of clients; remove {self._folder} to begin anew"
            ) from None


def _normalisation_table(known: Mapping[int, Normalisation]) -> Table:
    if not known:
        return {}
    return {
        _CLIENTS: np.array(list(known), np.int64),
        _MEAN: np.stack([one.mean for one in known.values()]),
        _STD: np.stack([one.std for one in known.values()]),
    }


def _read_normalisations(table: Mapping[str, Vector]) -> dict[int, Normalisation]:
    if _CLIENTS not in table:
        return {}
    rows = zip(table[_CLIENTS].tolist(), table[_MEAN], table[_STD], strict=True)
    return {client: Normalisation(mean, std) for client, mean, std in rows}
