"""What clients keep between rounds, in a file: their personal parameters and local prototypes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.cohort.recordfile import RecordFile, Vector, as_vector
from fedali.errors import CheckpointError
from fedali.methods import Layouts, Method, SharedState, personal_indices
from fedali.support.files import write_text

Table = dict[str, npt.NDArray[Any]]

_SLOTS = 2


class ClientStore:
    """Personal state of every client, on disk; a client that never trained starts from the server's state.

    A client has two slots of one record. What it keeps of a round goes to the slot that the last checkpoint does not
    refer to, so that a run killed at any moment finds the checkpoint's records untouched, and writes the rest again.

    Args:
        method: what is personal.
        layouts: of the model.
        path: of the file, which is made when a client keeps something; beside it ``<name>.json`` says what a record
            holds. A file there that ``restore`` did not take up is replaced. Without: an unnamed temporary file.

    Methods that write raise ``FedaliError`` when the disk is full.
    """

    def __init__(self, method: Method, layouts: Layouts, path: Path | None = None) -> None:
        self.where = personal_indices(method, layouts.parameters)
        keeps_prototypes = method.keeps_local_prototypes
        self._sizes = {
            "personal": self.where.size,
            "local_prototypes": layouts.prototypes.size if keeps_prototypes else 0,
        }
        self._path = path
        self._records: RecordFile | None = None
        self._rows: dict[int, int] = {}  # by client, in the order in which they first trained
        self._slots: list[int] = []  # by row: which of the two holds
        self._checks: list[int] = []  # by row: checksum of what it holds
        self._written: set[int] = set()  # rows that the last checkpoint does not know

    @property
    def sizes(self) -> dict[str, int]:
        """Names and lengths of the parts of a client's record; empty where a method keeps nothing."""
        return {name: size for name, size in self._sizes.items() if size}

    @property
    def bytes_per_client(self) -> int:
        """Bytes on disk of a client that has trained at some time; of one that never has, and in memory: none."""
        return _SLOTS * 4 * sum(self._sizes.values())

    def __contains__(self, client: int) -> bool:
        """Whether the client keeps something."""
        return client in self._rows

    def record(self, client: int) -> Vector:
        """What a client keeps, its parts one after another as in ``sizes``.

        Raises ``CheckpointError`` when the file does not hold what was written.
        """
        row = self._rows[client]
        assert self._records is not None
        data = self._records.read(_SLOTS * row + self._slots[row])
        if zlib.crc32(data) != self._checks[row]:
            raise self._broken(f"the record of client {client} is not what the checkpoint says")
        return as_vector(data)

    def compose(self, client: int, shared: SharedState) -> tuple[Vector, Vector]:
        """Theta [P] and local prototypes [L] a client starts a round from."""
        theta, prototypes = np.array(shared.theta, np.float32), np.array(shared.prototypes, np.float32)
        if client in self:
            record = self.record(client)
            theta[self.where] = record[: self.where.size]
            if self._sizes["local_prototypes"]:
                prototypes[:] = record[self.where.size :]
        return theta, prototypes

    def remember(self, client: int, theta: Vector, local_prototypes: Vector) -> None:
        """Keep what stays with the client of a trained model."""
        if not self.sizes:
            return
        records = self._open()
        row = self._rows.get(client)
        if row is None:
            row = self._rows[client] = len(self._slots)
            self._slots.append(0)
            self._checks.append(0)
        elif row not in self._written:
            self._slots[row] = 1 - self._slots[row]
        self._written.add(row)
        kept = local_prototypes[: self._sizes["local_prototypes"]]
        self._checks[row] = zlib.crc32(
            records.write(_SLOTS * row + self._slots[row], theta[self.where], kept)
        )

    def checkpoint(self) -> Table:
        """Bring the records to the disk; the table that says which of them hold, for ``restore``; empty when none do.

        Columns ``store.clients``, ``store.slots``, ``store.checks``, a row for each client that keeps something. The
        table has to be written before a client trains again.
        """
        self._written = set()
        if self._records is None:
            return {}
        self._records.flush()
        return {
            "store.clients": np.array(list(self._rows), np.int64),
            "store.slots": np.array(self._slots, np.uint8),
            "store.checks": np.array(self._checks, np.uint32),
        }

    def restore(self, table: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up the records of a ``checkpoint``, or begin anew when the table is empty.

        Raises ``CheckpointError`` when the file is missing, shorter than the table says, or of other sizes.
        """
        self._records, self._written = None, set()
        try:
            clients, slots, checks = (
                table.get(f"store.{name}", np.empty(0, np.int64)).tolist()
                for name in ("clients", "slots", "checks")
            )
            self._rows = {client: row for row, client in enumerate(clients)}
            if not len(self._rows) == len(slots) == len(checks) or not set(slots) <= {0, 1}:
                raise ValueError
        except (ValueError, TypeError, AttributeError):
            raise self._broken("the checkpoint's table of clients is not one") from None
        self._slots, self._checks = slots, checks
        if not self._rows:
            return
        if self._path is None or not self._path.exists() or self._read_header() != self._header():
            raise self._broken("it is missing, or its records have other sizes")
        self._records = RecordFile(sum(self._sizes.values()), self._path)
        last = max(_SLOTS * row + slot for row, slot in enumerate(slots))
        if last >= len(self._records):
            raise self._broken(f"it holds {len(self._records)} records, the checkpoint says {last + 1}")

    def scratch(self, size: int) -> RecordFile:
        """An unnamed file for vectors [size], beside this one."""
        return RecordFile.temporary(size, self._path.parent if self._path else None)

    def _open(self) -> RecordFile:
        if self._records is None:
            size = sum(self._sizes.values())
            if self._path is None:
                self._records = RecordFile.temporary(size)
            else:
                self._path.unlink(missing_ok=True)  # of a run killed before its first checkpoint
                write_text(self._path.with_suffix(".json"), json.dumps(self._header(), indent=1))
                self._records = RecordFile(size, self._path)
        return self._records

    def _header(self) -> dict[str, Any]:
        return {"dtype": "<f4", "slots": _SLOTS, "record": self.sizes}

    def _read_header(self) -> Any:
        assert self._path is not None
        try:
            return json.loads(self._path.with_suffix(".json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def _broken(self, why: str) -> CheckpointError:
        path = self._path or Path("the file of the clients")
        return CheckpointError(
            f"cannot read {path}: {why}. Delete the folder {path.parent} to run this part again"
        )
