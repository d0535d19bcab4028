"""What a federation's run leaves on the disk of whoever started it, and what it is resumed from.

    run.json                settings, and which bundle
    model.fedali            the bundle that devices train
    rounds/00001.json ...   a round: per-device metrics, who answered, who did not and why, bytes, seconds
    checkpoint.safetensors  the shared state after the last complete round
    best.safetensors        that of the round with the best mean validation accuracy
    status.json             what `fedali status` shows
    done.json               written last

A round's checkpoint is written after the round's other files: a kill loses the round that was under way, and the gateways
answer its repetition with what they have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedali.errors import CheckpointError, SettingsError
from fedali.methods import SharedState
from fedali.support.files import flush_folder, reporting, write_bytes, write_text


@dataclass(frozen=True)
class Checkpoint:
    """The shared state after ``round``, and the round with the best mean validation accuracy so far."""

    round: int
    shared: SharedState
    best_round: int = 0
    best_score: float = -1.0


class RunFolder:
    """Reads and writes the folder of one run.

    Args:
        path: the folder; ``create`` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "model.fedali"

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "done.json").exists()

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

    def rounds(self, last: int) -> list[dict[str, Any]]:
        """What ``write_round`` wrote of rounds 1 to ``last``."""
        return [dict(self._json(self._round(round_))) for round_ in range(1, last + 1)]

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, and the best round's where this is the best; on the disk when it returns."""
        facts = {"round": checkpoint.round, "best_round": checkpoint.best_round}
        metadata = {"fedali": json.dumps({**facts, "best_score": checkpoint.best_score}, sort_keys=True)}
        tensors = {
            "theta": np.asarray(checkpoint.shared.theta, np.float32),
            "prototypes": np.asarray(checkpoint.shared.prototypes, np.float32),
        }
        data = save(tensors, metadata)
        if checkpoint.best_round == checkpoint.round:
            write_bytes(self.path / "best.safetensors", data)
        write_bytes(self.path / "checkpoint.safetensors", data)
        flush_folder(self.path)

    def read_checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint, None before the first round's; ``CheckpointError`` when it is broken."""
        return self._checkpoint("checkpoint")

    def read_best(self) -> Checkpoint | None:
        """The state of the round with the best mean validation accuracy, else the latest; as ``read_checkpoint``."""
        return self._checkpoint("best") or self.read_checkpoint()

    def _checkpoint(self, name: str) -> Checkpoint | None:
        path = self.path / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            data = path.read_bytes()
            tensors = load(data)
            head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            facts = json.loads(head["__metadata__"]["fedali"])
            shared = SharedState(tensors["theta"], tensors["prototypes"])
            return Checkpoint(
                int(facts["round"]), shared, int(facts["best_round"]), float(facts["best_score"])
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace what `fedali status` shows."""
        write_text(self.path / "status.json", json.dumps(status, indent=1))

    def status(self) -> dict[str, Any]:
        """What ``write_status`` wrote, empty before."""
        path = self.path / "status.json"
        return dict(self._json(path)) if path.exists() else {}

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Mark the run complete."""
        write_text(self.path / "done.json", json.dumps(facts, indent=1))

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
