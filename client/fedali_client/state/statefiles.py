"""The files of a state folder, and what each is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedali.errors import CheckpointError, FedaliError
from fedali_client.state.checkpoint import DeviceCheckpoint, read_arrays, write_arrays
from fedali_client.state.lock import Lock
from fedali_client.state.slots import Vector


@dataclass(frozen=True)
class StateFiles:
    """Reads and writes the files in ``folder``, which belong to the bundle of digest ``purpose`` (32 bytes)."""

    folder: Path
    purpose: bytes

    @property
    def slots(self) -> Path:
        """The mapped file."""
        return self.folder / "training.map"

    @property
    def checkpoint(self) -> Path:
        """The state at rest."""
        return self.folder / "checkpoint.safetensors"

    def lock(self) -> Lock:
        """Make the folder, for its owner alone, and keep other processes from changing it."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FedaliError(
                f"cannot make the folder {self.folder}: {error.strerror}; give another for the state"
            ) from error
        return Lock(self.folder / "lock")

    def signature(self) -> tuple[int, ...]:
        """Changes with the checkpoint's file."""
        try:
            facts = self.checkpoint.stat()
        except OSError:
            return ()
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def read_checkpoint(self) -> DeviceCheckpoint | None:
        """The checkpoint, if there is one; ``CheckpointError`` when it is damaged."""
        try:
            return DeviceCheckpoint.read(self.checkpoint, self.purpose)
        except FileNotFoundError:
            return None

    def write_checkpoint(self, checkpoint: DeviceCheckpoint) -> None:
        """Replace the checkpoint; on the disk on return."""
        checkpoint.write(self.checkpoint, self.purpose)

    def read_base(self, name: str) -> dict[str, Vector]:
        """The arrays of a base; ``FileNotFoundError`` when another replaced it."""
        path = self.folder / name
        arrays, facts = read_arrays(path)
        if facts.get("purpose") != self.purpose.hex():
            raise CheckpointError(f"{path} belongs to another bundle")
        return arrays

    def write_base(self, number: int, arrays: Mapping[str, Vector]) -> str:
        """Write a base beside the one that counts, until a checkpoint names it; its name. On the disk on return."""
        name = f"base-{number}.safetensors"
        write_arrays(self.folder / name, arrays, {"purpose": self.purpose.hex()})
        return name

    def tidy(self, base: str) -> None:
        """Remove other bases than ``base``, and what a killed process was writing."""
        for path in [*self.folder.glob("base-*"), *self.folder.glob(".*.*")]:
            if path.name != base:
                path.unlink(missing_ok=True)
