"""What survives a power cut: one safetensors file, replaced as a whole and flushed to the disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedali.data.normalisation import Normalisation
from fedali.errors import CheckpointError
from fedali.support.files import flush_folder, reporting, write_bytes
from fedali_client.state.slots import Progress, Vector

_KEY = "fedali"


@dataclass(frozen=True)
class DeviceCheckpoint:
    """A state at rest.

    Args:
        generation: 1, 2, ...: how many checkpoints there were.
        base: file of the arrays that only a round of federation changes; "" for those of the bundle.
        round: of the federation, that the shared part is from.
        influence: share of the prototypes in the ALP layers' output.
        normalisation: this device's own, where the bundle leaves it to the device and it has seen data.
        progress: of training.
        task: what the shared part was received for, where whoever received it gave that a name.
        arrays: as ``fedali_client.state.slots.ARRAYS`` names them; moments only while a fit is under way. ``kept`` once a round's
            training has ended, where the method makes something of the rest of the vector then; ``gate`` what it sends for others' gates.
    """

    generation: int
    base: str
    round: int
    influence: float
    normalisation: Normalisation | None = None
    progress: Progress = field(default_factory=Progress)
    task: str = ""
    arrays: Mapping[str, Vector] = field(default_factory=dict)

    def write(self, path: Path, purpose: bytes) -> None:
        """Replace the file at ``path``; on return it is on the disk. ``FedaliError`` when the disk is full."""
        normalisation = self.normalisation
        progress = self.progress._asdict()
        progress["identity"] = self.progress.identity.hex()
        facts = {
            "purpose": purpose.hex(),
            "generation": self.generation,
            "base": self.base,
            "round": self.round,
            "task": self.task,
            "influence": self.influence,
            "normalisation": normalisation
            and {"mean": normalisation.mean.tolist(), "std": normalisation.std.tolist()},
            "progress": progress,
        }
        write_arrays(path, self.arrays, facts)

    @classmethod
    def read(cls, path: Path, purpose: bytes) -> DeviceCheckpoint:
        """The checkpoint at ``path``; ``CheckpointError`` when it is damaged or of another bundle."""
        arrays, facts = read_arrays(path)
        try:
            if facts["purpose"] != purpose.hex():
                raise CheckpointError(f"{path} belongs to another bundle; give another folder for the state")
            progress = Progress(
                **{**facts["progress"], "identity": bytes.fromhex(facts["progress"]["identity"])}
            )
            statistics = facts["normalisation"]
            return cls(
                generation=int(facts["generation"]),
                base=str(facts["base"]),
                round=int(facts["round"]),
                task=str(facts.get("task", "")),
                influence=float(facts["influence"]),
                normalisation=statistics
                and Normalisation(
                    np.array(statistics["mean"], np.float32), np.array(statistics["std"], np.float32)
                ),
                progress=progress,
                arrays=arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path) from error


def write_arrays(path: Path, arrays: Mapping[str, Vector], facts: Mapping[str, Any]) -> None:
    """A safetensors file with ``facts`` as JSON in its header, on the disk when this returns."""
    from safetensors.numpy import save

    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array.size}
    facts = {**facts, "crc32": _crc(kept, facts)}
    write_bytes(path, save(kept, metadata={_KEY: json.dumps(facts, sort_keys=True)}))
    flush_folder(path.parent)


def read_arrays(path: Path) -> tuple[dict[str, Vector], dict[str, Any]]:
    """What ``write_arrays`` wrote; ``CheckpointError`` for anything else, ``FileNotFoundError`` for nothing."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with reporting(path, "read"), safe_open(path, framework="np") as stream:
            facts = json.loads(stream.metadata()[_KEY])
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if facts.pop("crc32", None) != _crc(arrays, facts):
        raise _damaged(path)
    return arrays, facts


def _crc(arrays: Mapping[str, Vector], facts: Mapping[str, Any]) -> int:
    found = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        found = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, zlib.crc32(name.encode(), found))
    return found


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged, perhaps by a failing card: move the folder {path.parent} away to start again from the bundle"
    )
