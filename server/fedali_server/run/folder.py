"""A run's folder, whoever trained: what is written, what a resumed run reads, in which order, so that a kill loses one round.

Each line of the table and seed has a folder of its own:

    checkpoint.safetensors  the shared state after the last complete round, and which records of clients.f32 hold
    best.safetensors        the shared state of the round with the best mean validation accuracy, and personal models where they are here
    done.json               written last

Where clients are simulated, or over machines:

    metrics/00001.parquet ...  per-client metrics of a round, a row a client
    drawn/00001.json ...    where sampling is set: how many were on, who trained and who dropped out
    clients.f32, clients.json  what clients keep, two records each; none where nothing is personal
    personal/<client>.safetensors  each client's final personal model

Over sites and devices, which keep what is personal to themselves:

    run.json                settings, and which bundle
    untrained.fedali        the bundle that devices train, as the run began with it; `fedali export` makes the trained one
    claims.json             how many samples devices said they have before round 1, see ``fedali_server.run.claims``
    rounds/00001.json ...   a round: per-device metrics, who answered, who did not and why, bytes, seconds
    status.json             what `fedali status` shows

Within a round the checkpoint is written last; files of a round after it are overwritten with the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedali.cohort.tensorfile import METADATA, Piece, broken, read_tensors, write_tensors
from fedali.errors import CheckpointError, SettingsError
from fedali.methods import Layouts, SharedState
from fedali.support.files import flush_folder, reporting, write_bytes, write_text
from fedali.support.names import file_name

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

    def is_stale(self, patience: int) -> bool:
        """Whether the best round lies ``patience`` rounds back, or more; never where patience is 0, or no round was the best."""
        return patience > 0 and self.best_round > 0 and self.round - self.best_round >= patience


class RunFolder:
    """Reads and writes the folder of one line of the table and one seed.

    Args:
        path: the folder; created by the first write.
        identity: what must be the same for a checkpoint to be taken up, such as method, seed and a settings' hash; a run over devices
            has its bundle beside it instead.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] = MappingProxyType({})) -> None:
        self.path = path
        self.identity = {**identity, "format": _FORMAT} if identity else {}

    @property
    def clients(self) -> Path:
        """Where the records of the clients are; see ``fedali.cohort.store``."""
        return self.path / "clients.f32"

    @property
    def bundle(self) -> Path:
        """What devices train, where they do: the model as it was before round 1."""
        return _first(self.path / "untrained.fedali", self.path / "model.fedali")

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
            shared = _shared_of(tensors)
            return Checkpoint(
                int(metadata["round"]),
                shared,
                tensors,
                int(metadata["best_round"]),
                float(metadata["best_score"]),
            )
        except (KeyError, ValueError) as error:
            raise broken(path, f"it lacks {error}") from error

    def read_best(self) -> Checkpoint | None:
        """The shared state of the round with the best mean validation accuracy, else of the latest; None before the first."""
        path = self.path / "best.safetensors"
        if not path.exists():
            return self.read_checkpoint()
        tensors, metadata = read_tensors(path)
        try:
            return Checkpoint(int(metadata["round"]), _shared_of(tensors))
        except (KeyError, ValueError) as error:
            raise broken(path, f"it lacks {error}") from error

    def write_best(
        self,
        shared: SharedState,
        clients: Iterable[tuple[str, Piece]],
        round_: int,
        personal: npt.NDArray[np.int64] | None = None,
        began: SharedState | None = None,
    ) -> None:
        """Replace the best round's models, one client in memory at a time; ``read_best`` reads them.

        Args:
            shared: ``shared.theta`` and ``shared.prototypes``: the model of every client that has nothing below.
            clients: of each client that trained in this round ``<client>/theta`` and ``<client>/local_prototypes``;
                of others what they keep, if anything: ``<client>/personal``, ``<client>/local_prototypes``.
            round_: the round.
            personal: where in theta ``<client>/personal`` belongs, sorted; the file's metadata hold its ranges.
            began: what the round began with, ``began.theta`` and ``began.prototypes``, where answers are made of it too.
        """
        tensors = {**_shared_tensors(shared), **({} if began is None else _shared_tensors(began, "began"))}
        pieces = [Piece({name: value.size}, partial(_same, value)) for name, value in tensors.items()]
        for name, piece in clients:
            sizes = {f"{name}/{tensor}": size for tensor, size in piece.sizes.items()}
            pieces.append(Piece(sizes, piece.read))
        facts = {
            **self.identity,
            "round": str(round_),
            "personal": _ranges(np.empty(0, np.int64) if personal is None else personal),
        }
        write_tensors(self.path / "best.safetensors", pieces, {METADATA: json.dumps(facts, sort_keys=True)})

    def write_personal(self, layouts: Layouts, models: Iterable[tuple[str, Vector, Vector]]) -> None:
        """Write each client's final model: named parameters and ``alp.<i>`` prototypes."""
        for name, theta, prototypes in models:
            tensors = {**layouts.parameters.unflatten(theta), **layouts.prototypes.unflatten(prototypes)}
            self._write(f"personal/{file_name(name)}", tensors, {"client": name})

    def create(self, bundle: bytes, settings: Mapping[str, Any]) -> None:
        """Begin a run; ``SettingsError`` where the folder holds anything already."""
        if self.path.exists() and any(self.path.iterdir()):
            raise SettingsError(f"{self.path} is not empty: resume it with --resume, or choose another --out")
        with reporting(self.path):
            (self.path / "rounds").mkdir(parents=True, exist_ok=True)
        write_bytes(self.bundle, bundle)
        write_text(self.path / "run.json", json.dumps(settings, indent=1))
        flush_folder(self.path)

    def settings(self) -> dict[str, Any]:
        """What ``create`` was given; ``CheckpointError`` where there is no run."""
        return dict(self._json(self.path / "run.json"))

    def write_round(self, round_: int, facts: Mapping[str, Any]) -> None:
        """A finished round."""
        write_text(self._round(round_), json.dumps(facts))
        flush_folder(self.path / "rounds")

    def write_drawn(self, round_: int, drawn: Mapping[str, Any]) -> None:
        """Who was chosen in a round."""
        write_text(self.path / "drawn" / f"{round_:05d}.json", json.dumps(drawn))

    def rounds(self, last: int) -> list[dict[str, Any]]:
        """What ``write_round`` wrote of rounds 1 to ``last``."""
        return [dict(self._json(self._round(round_))) for round_ in range(1, last + 1)]

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace what `fedali status` shows."""
        write_text(self.path / "status.json", json.dumps(status, indent=1))

    def status(self) -> dict[str, Any]:
        """What ``write_status`` wrote, empty before."""
        path = self.path / "status.json"
        return dict(self._json(path)) if path.exists() else {}

    def _write(self, name: str, tensors: Mapping[str, Vector], metadata: Mapping[str, str]) -> None:
        arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        # One entry: safetensors writes several in an order that changes from process to process.
        facts = json.dumps({**self.identity, **metadata}, sort_keys=True)
        write_bytes(self.path / f"{name}.safetensors", save(arrays, {METADATA: facts}))

    def _round(self, round_: int) -> Path:
        return self.path / "rounds" / f"{round_:05d}.json"

    def _json(self, path: Path) -> Mapping[str, Any]:
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} holds no run: {path.name} is missing") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
        if not isinstance(found, dict):
            raise CheckpointError(f"cannot read {path}: it is no JSON object")
        return found


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


def _first(now: Path, before: Path) -> Path:
    """A file by its name, or by that of earlier versions where it has that."""
    return before if before.exists() and not now.exists() else now


def _shared_tensors(shared: SharedState, name: str = "shared") -> dict[str, Vector]:
    return {
        f"{name}.theta": np.asarray(shared.theta, np.float32),
        f"{name}.prototypes": np.asarray(shared.prototypes, np.float32),
    }


def _shared_of(tensors: dict[str, Vector]) -> SharedState:
    """Taken from a file's tensors; those of 0.1.0's runs over devices were called otherwise."""
    before = "" if "theta" in tensors else "shared."
    return SharedState(tensors.pop(f"{before}theta"), tensors.pop(f"{before}prototypes"))


def _same(value: Vector) -> Vector:
    return value


def _ranges(indices: npt.NDArray[np.int64]) -> list[list[int]]:
    """Sorted indices as stretches without a gap: [[begin, end], ...].

    >>> _ranges(np.array([2, 3, 4, 9]))
    [[2, 5], [9, 10]]
    """
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return [[int(part[0]), int(part[-1]) + 1] for part in parts if part.size]
