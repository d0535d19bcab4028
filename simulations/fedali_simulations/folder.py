"""A run's folder: what is written, what a resumed run reads, and in which order, so that a kill loses one round.

Each line of the table and seed has a folder of its own:

    metrics/00001.parquet ...  per-client metrics of a round, a row a client
    checkpoint.safetensors     shared state after the last complete round, and which records of clients.f32 hold
    clients.f32, clients.json  what clients keep, two records each; none where nothing is personal
    best.safetensors           shared state and personal models of the round with the best validation accuracy
    personal/<client>.safetensors  each client's final personal model
    done.json                  written last

Within a round the checkpoint is written last; files of a round after it are overwritten with the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedali.cohort.tensorfile import METADATA, Piece, broken, read_tensors, write_tensors
from fedali.errors import CheckpointError
from fedali.methods import Layouts, SharedState
from fedali.support.files import flush_folder, write_bytes, write_text
from fedali.support.names import file_name
from fedali_simulations.report.tablefile import Columns, write_table

if TYPE_CHECKING:  # needed when a run has ended: importing it takes as long as a short round
    import pandas as pd
Vector = npt.NDArray[np.floating[Any]]
_FORMAT = "2"


@dataclass(frozen=True)
class Checkpoint:
    """State after ``round``; ``kept`` is the clients' store's table; ``best_*`` is about validation accuracy."""

    round: int
    shared: SharedState
    kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    best_round: int = 0
    best_score: float = -1.0


class RunFolder:
    """Reads and writes the folder of one line of the table and one seed.

    Args:
        path: the folder; created by the first write.
        identity: what must be the same for a checkpoint to be taken up, such as method, seed and a settings' hash.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self.path = path
        self.identity = {**identity, "format": _FORMAT}

    @property
    def clients(self) -> Path:
        """Where the records of the clients are; see ``fedali.cohort.store``."""
        return self.path / "clients.f32"

    @property
    def done(self) -> bool:
        """Whether this run is complete."""
        return (self.path / "done.json").exists()

    def sweep(self) -> None:
        """Remove what a killed run was just writing: temporary files, all named with a leading dot."""
        for leftover in self.path.rglob(".*"):
            leftover.unlink(missing_ok=True)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Mark the run complete."""
        write_text(self.path / "done.json", json.dumps(facts, indent=1))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; on the disk itself when this returns, since clients' records follow it."""
        numbers = {
            "round": str(checkpoint.round),
            "best_round": str(checkpoint.best_round),
            "best_score": repr(checkpoint.best_score),
        }
        self._write("checkpoint", {**_shared_tensors(checkpoint.shared), **checkpoint.kept}, numbers)
        flush_folder(self.path)

    def read_checkpoint(self) -> Checkpoint | None:
        """The checkpoint, None when there is none; ``CheckpointError`` when it is broken or of another run."""
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        tensors, metadata = read_tensors(path)
        for key, value in self.identity.items():
            if metadata.get(key) != value:
                raise CheckpointError(
                    f"{path} belongs to another run: its {key} is {metadata.get(key)!r}, this run's is {value!r}. "
                    "Resume with the settings it was started with, or start anew in another folder"
                )
        try:
            shared = SharedState(tensors.pop("shared.theta"), tensors.pop("shared.prototypes"))
            return Checkpoint(
                int(metadata["round"]),
                shared,
                tensors,
                int(metadata["best_round"]),
                float(metadata["best_score"]),
            )
        except (KeyError, ValueError) as error:
            raise broken(path, f"it lacks {error}") from error

    def write_best(
        self,
        shared: SharedState,
        clients: Iterable[tuple[str, Piece]],
        round_: int,
        personal: npt.NDArray[np.int64],
    ) -> None:
        """Replace the best round's models, one client in memory at a time; ``read_best`` reads them.

        Args:
            shared: ``shared.theta`` and ``shared.prototypes``: the model of every client that has nothing below.
            clients: of each client that trained in this round ``<client>/theta`` and ``<client>/local_prototypes``;
                of others what they keep, if anything: ``<client>/personal``, ``<client>/local_prototypes``.
            round_: the round.
            personal: where in theta ``<client>/personal`` belongs, sorted; the file's metadata hold its ranges.
        """
        tensors = _shared_tensors(shared)
        pieces = [Piece({name: value.size}, partial(_same, value)) for name, value in tensors.items()]
        for name, piece in clients:
            sizes = {f"{name}/{tensor}": size for tensor, size in piece.sizes.items()}
            pieces.append(Piece(sizes, piece.read))
        facts = {**self.identity, "round": str(round_), "personal": _ranges(personal)}
        write_tensors(self.path / "best.safetensors", pieces, {METADATA: json.dumps(facts, sort_keys=True)})

    def write_personal(self, layouts: Layouts, models: Iterable[tuple[str, Vector, Vector]]) -> None:
        """Write each client's final model: named parameters and ``alp.<i>`` prototypes."""
        for name, theta, prototypes in models:
            tensors = {**layouts.parameters.unflatten(theta), **layouts.prototypes.unflatten(prototypes)}
            self._write(f"personal/{file_name(name)}", tensors, {"client": name})

    def write_metrics(self, round_: int, columns: Columns) -> None:
        """Write a round's per-client metrics: columns by name, of one length."""
        path = self.path / "metrics" / f"{round_:05d}.parquet"
        write_table(path, columns)
        flush_folder(path.parent)

    def write_unseen(self, columns: Columns) -> None:
        """Write how clients that never took part fare before and after adapting."""
        write_table(self.path / "unseen.parquet", columns)

    def read_unseen(self) -> pd.DataFrame | None:
        """What ``write_unseen`` wrote, None when no client was held out."""
        import pandas as pd

        path = self.path / "unseen.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def read_metrics(self, rounds: int) -> pd.DataFrame:
        """Per-client metrics of rounds 1 to ``rounds``."""
        import pandas as pd

        paths = [self.path / "metrics" / f"{round_:05d}.parquet" for round_ in range(1, rounds + 1)]
        try:
            return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the metrics of {self.path}: {error}") from error

    def _write(self, name: str, tensors: Mapping[str, Vector], metadata: Mapping[str, str]) -> None:
        arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        # One entry: safetensors writes several in an order that changes from process to process.
        facts = json.dumps({**self.identity, **metadata}, sort_keys=True)
        write_bytes(self.path / f"{name}.safetensors", save(arrays, {METADATA: facts}))


def read_best(path: Path, client: str) -> tuple[Vector, Vector]:
    """Theta [P] and local prototypes [L] of a client's personal model in ``best.safetensors``.

    A client that the file has nothing of has the server's. Raises ``CheckpointError`` when the file cannot be read.
    """
    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())

            def tensor(name: str) -> Vector | None:
                return file.get_tensor(f"{client}/{name}") if f"{client}/{name}" in names else None

            theta, personal, prototypes = tensor("theta"), tensor("personal"), tensor("local_prototypes")
            if theta is None:
                theta = file.get_tensor("shared.theta")
            if personal is not None:
                ranges = json.loads(file.metadata()[METADATA])["personal"]
                theta[np.concatenate([np.arange(begin, end) for begin, end in ranges])] = personal
            return theta, file.get_tensor("shared.prototypes") if prototypes is None else prototypes
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise broken(path, str(error).splitlines()[0]) from error


def _shared_tensors(shared: SharedState) -> dict[str, Vector]:
    return {
        "shared.theta": np.asarray(shared.theta, np.float32),
        "shared.prototypes": np.asarray(shared.prototypes, np.float32),
    }


def _same(value: Vector) -> Vector:
    return value


def _ranges(indices: npt.NDArray[np.int64]) -> list[list[int]]:
    """Sorted indices as stretches without a gap: [[begin, end], ...].

    >>> _ranges(np.array([2, 3, 4, 9]))
    [[2, 5], [9, 10]]
    """
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return [[int(part[0]), int(part[-1]) + 1] for part in parts if part.size]
