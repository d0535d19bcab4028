"""Updates until they are acknowledged, and what their encodings lost: on the disk before they are sent.

There is one record for each kind of task, the latest each. A record names its files; it is replaced as a
whole, so that a kill leaves the old one with its files or the new one with its own. What an encoding lost counts from the
moment that the gateway has the update: an update that never counted owes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedali.errors import CheckpointError
from fedali.support.files import flush_folder, reporting, write_bytes, write_text
from fedali_client.state.checkpoint import read_arrays, write_arrays
from fedali_client.state.slots import Vector

KINDS = ("train", "evaluate", "statistics")
COUNTED = "counted"


@dataclass(frozen=True)
class Record:
    """An update.

    Args:
        kind: one of ``KINDS``.
        identity: of the task and all that it was to be done with.
        task: its id.
        run: name of the training.
        round: of the training.
        bundle: SHA-256 of its file, in hex.
        sha256: of the update, in hex.
        size: of the update, bytes.
        residual: file of what was owed before; "" for nothing.
        next_residual: file of what is owed once the update counted; "" for nothing.
        verdict: "" until the gateway answered, then ``counted``, ``late`` or ``refused``.
        facts: for people.
    """

    kind: str
    identity: str
    task: str
    run: str
    round: int
    bundle: str
    sha256: str
    size: int
    residual: str = ""
    next_residual: str = ""
    verdict: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def file(self) -> str:
        """Of the update."""
        return f"{self.kind}-{self.identity[:32]}.update"


class Journal:
    """The records in ``folder``. Raises ``FedaliError`` when the disk is full."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with reporting(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records = {kind: self._read(kind) for kind in KINDS}
        self._tidy()

    def latest(self, kind: str) -> Record | None:
        """The latest record of a kind."""
        return self._records[kind]

    def waiting(self) -> list[Record]:
        """Records whose update the gateway has not answered yet."""
        return [record for record in self._records.values() if record is not None and not record.verdict]

    def update(self, record: Record) -> bytes | None:
        """The bytes of a record's update; None where they are gone, or damaged."""
        try:
            data = (self._folder / record.file).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == record.sha256 else None

    def owed(self, run: str, bundle: str) -> tuple[str, Vector | None]:
        """What the encoding of earlier updates of a run lost: its file, and the numbers; ("", None) for nothing."""
        record = self._records["train"]
        if record is None or (record.run, record.bundle) != (run, bundle):
            return "", None
        name = record.next_residual if record.verdict == COUNTED else record.residual
        try:
            return name, read_arrays(self._folder / name)[0]["residual"] if name else None
        except FileNotFoundError:
            return "", None

    def add(self, record: Record, update: bytes, lost: Vector | None) -> Record:
        """Put a new update in the place of the latest of its kind; ``lost`` is what its encoding lost. On disk on return."""
        write_bytes(self._folder / record.file, update)
        if lost is not None:
            record = dataclasses.replace(record, next_residual=f"{record.identity[:32]}.residual")
            write_arrays(self._folder / record.next_residual, {"residual": lost}, {})
        return self._put(record)

    def settle(self, record: Record, verdict: str) -> None:
        """Note what the gateway said. On disk on return."""
        if record.verdict != verdict:
            self._put(dataclasses.replace(record, verdict=verdict))

    def _put(self, record: Record) -> Record:
        write_text(self._path(record.kind), json.dumps(dataclasses.asdict(record), sort_keys=True) + "\n")
        flush_folder(self._folder)
        self._records[record.kind] = record
        self._tidy()
        return record

    def _read(self, kind: str) -> Record | None:
        path = self._path(kind)
        if not path.exists():
            return None
        with reporting(path, "read"):
            text = path.read_bytes()
        try:
            return Record(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} is damaged, perhaps by a failing card: remove it; an update that waits there is lost"
            ) from error

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}.json"

    def _tidy(self) -> None:
        records = [record for record in self._records.values() if record is not None]
        wanted = {name for r in records for name in (r.file, r.residual, r.next_residual)}
        for path in [
            *self._folder.glob("*.update"),
            *self._folder.glob("*.residual"),
            *self._folder.glob(".*.*"),
        ]:
            if path.name not in wanted:
                path.unlink(missing_ok=True)
