"""A client's state on disk: opened where it was left, however that was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedali.bundle.file import Bundle
from fedali.data.normalisation import Normalisation
from fedali.errors import CheckpointError, FedaliError
from fedali_client.state.checkpoint import DeviceCheckpoint
from fedali_client.state.lock import Lock
from fedali_client.state.slots import ARRAYS, Progress, Sizes, Slots, Vector
from fedali_client.state.statefiles import StateFiles

_BASE = ("theta", "shared_theta", "shared_prototypes")


class PersonalState:
    """The parameters and prototypes of one client, and how far its training is.

    Three files: ``training.map`` (``fedali_client.state.slots``) changes with each step; ``checkpoint.safetensors`` is written
    by ``save``; ``base-N.safetensors`` holds what only a round of federation changes, and is written by ``receive``.
    The checkpoint names the base that it goes with; until the first there are the bundle's own arrays.

    Args:
        folder: of this bundle alone; made when missing.
        bundle: gives the initial state, and what belongs where.
        read_only: look without a lock, also while another process trains; nothing may be changed then.
    """

    def __init__(self, folder: Path, bundle: Bundle, *, read_only: bool = False) -> None:
        self.folder, self.manifest, self.read_only = folder, bundle.manifest, read_only
        self._files = StateFiles(folder, bytes.fromhex(bundle.digest))
        layouts = bundle.manifest.layouts
        moments = {"adam": 2, "sgd": 1}[bundle.manifest.optimizer["name"]]
        trained = layouts.trained.size
        self.sizes = Sizes(trained, trained, trained if moments == 2 else 0, layouts.prototypes.size)
        self._where = bundle.manifest.trained
        self._all_trained = trained == layouts.parameters.size  # nothing of the base's own theta counts then
        self._bundle = bundle
        self.checkpoint: DeviceCheckpoint
        self._lock: Lock | None = None
        self._slots: Slots | None = None
        if not read_only:
            self._lock = self._files.lock()
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    @property
    def progress(self) -> Progress:
        """Of training."""
        return self._progress if self._slots is None else self._slots.progress

    @property
    def slots(self) -> Slots:
        """Where training happens."""
        if self._slots is None:
            raise FedaliError("this state was opened to be read alone")
        return self._slots

    @property
    def trained(self) -> Vector:
        """The part of theta that training changes, [T]."""
        return self._current["theta"]

    @property
    def local_prototypes(self) -> Vector:
        """Local prototypes [L]."""
        return self._current["local_prototypes"]

    @property
    def shared_theta(self) -> Vector:
        """What the server sent, [P]; personal parts keep their initial values."""
        return self._base["shared_theta"]

    @property
    def known_theta(self) -> Vector:
        """What training knows of it, [P']."""
        return self._base["shared_theta"][: self.manifest.known]

    @property
    def shared_prototypes(self) -> Vector:
        """What the server sent, [L]."""
        return self._base["shared_prototypes"]

    @property
    def base_is_the_bundles(self) -> bool:
        """Whether the part of theta that is not trained here is still what the bundle brought."""
        return not self.checkpoint.base

    @property
    def kept(self) -> Vector:
        """What training knows of the vector and leaves as it is, [P' - T]: as the round began, or as its end made it."""
        end = self.checkpoint.arrays.get("kept")
        return self._base["theta"][self.sizes.theta : self.manifest.known] if end is None else end

    def theta(self) -> Vector:
        """The whole vector [P], copied."""
        theta = self._base["theta"].copy()
        theta[self._where] = self.trained
        known = self.manifest.known
        if "kept" in self.checkpoint.arrays:
            theta[self.sizes.theta : known] = self.kept
        if "gate" in self.checkpoint.arrays:
            theta[known:] = self.checkpoint.arrays["gate"]
        return theta

    def forget_kept(self) -> None:
        """Go back to the rest of the vector as the round began."""
        self.checkpoint = dataclasses.replace(self.checkpoint, arrays={})

    def keep(self, kept: Vector) -> None:
        """Take what the end of a round's training made of the rest of the vector; on the disk with the next ``save``."""
        self.checkpoint = dataclasses.replace(
            self.checkpoint, arrays={**self.checkpoint.arrays, "kept": kept}
        )

    def keep_gate(self, prototypes: Vector) -> None:
        """Take what is sent in the gate's slot [P - P']; on the disk with the next ``save``."""
        self.checkpoint = dataclasses.replace(
            self.checkpoint, arrays={**self.checkpoint.arrays, "gate": prototypes}
        )

    def begin(self, identity: bytes, total: int, samples: int) -> None:
        """Start a fit: fresh moments, the next number."""
        spare = self._copy_to_spare()
        spare["first_moment"][...] = 0.0
        spare["second_moment"][...] = 0.0
        before = self.progress
        self.slots.commit(
            Progress(
                before.fit + 1,
                0,
                total,
                before.steps,
                before.samples,
                samples,
                last_loss=before.last_loss,
                last_accuracy=before.last_accuracy,
                identity=identity,
            )
        )

    def move_prototypes(self, local: Vector) -> None:
        """Take local prototypes that moved without training; a fit that was under way cannot go on from them."""
        self._copy_to_spare()["local_prototypes"][...] = local
        before = self.progress
        self.slots.commit(before._replace(total=before.step, identity=bytes(32)))

    def save(self, *, normalisation: Normalisation | None = None) -> None:
        """Write a checkpoint: from here on a power cut loses nothing of what is now.

        Raises ``FedaliError`` when the disk is full, or the state is not finite: it is then the latest checkpoint's.
        """
        progress = self.progress
        arrays: Mapping[str, Vector] = self.slots.current
        if not progress.under_way:
            arrays = {name: arrays[name] for name in ("theta", "local_prototypes")} | dict(
                self.checkpoint.arrays
            )
        if not all(np.isfinite(array).all() for array in arrays.values()):
            self.revert()
            raise FedaliError(
                "training diverged: parameters are NaN or infinite; the state that the latest checkpoint has is kept; look "
                "for odd values in the data, or export with a smaller learning rate"
            )
        self._write(
            dataclasses.replace(
                self.checkpoint,
                normalisation=normalisation or self.checkpoint.normalisation,
                progress=progress,
                arrays=arrays,
            )
        )
        self.slots.set_generation(self.checkpoint.generation)

    def revert(self) -> None:
        """Go back to the latest checkpoint."""
        self._slots = None
        self._files.slots.unlink(missing_ok=True)
        self._enter(self._read())

    def receive(
        self,
        theta: Vector,
        shared_theta: Vector,
        prototypes: Vector,
        local: Vector,
        round_: int,
        influence: float,
        task: str = "",
    ) -> None:
        """Begin a round: theta [P], the server's theta [P] and prototypes [L], local prototypes [L]. On disk on return."""
        arrays = {"theta": theta, "shared_theta": shared_theta, "shared_prototypes": prototypes}
        if self._all_trained:
            del arrays["theta"]
        base = self._files.write_base(self.checkpoint.generation + 1, arrays)
        before = self.progress
        self._write(
            dataclasses.replace(
                self.checkpoint,
                base=base,
                round=round_,
                influence=influence,
                task=task,
                progress=before._replace(total=before.step, trained_on=0, identity=bytes(32)),
                arrays={"theta": theta[self._where], "local_prototypes": local},
            )
        )
        self.revert()
        self._files.tidy(self.checkpoint.base)

    def refresh(self) -> bool:
        """Of a state that is read alone: load what was saved since; whether there was anything."""
        if not self.read_only or self._files.signature() == self._seen:
            return False
        self._load()
        return True

    def close(self) -> None:
        """Let other processes in. What was not saved is in the mapped file, until the machine stops."""
        self._slots = None
        if self._lock is not None:
            self._lock.release()

    @property
    def _current(self) -> Mapping[str, Vector]:
        return self._arrays if self._slots is None else self._slots.current

    def _copy_to_spare(self) -> Mapping[str, Vector]:
        current, spare = self.slots.current, self.slots.spare
        for name in ARRAYS:
            spare[name][...] = current[name]
        return spare

    def _load(self) -> None:
        for _ in range(100 if self.read_only else 1):
            try:
                self._enter(self._read())
                break
            except FileNotFoundError:  # a writer replaced the base that the checkpoint just read names
                continue
        else:
            raise CheckpointError(f"{self.folder} lacks files; move it away to start again from the bundle")
        if not self.read_only:
            self._files.tidy(self.checkpoint.base)

    def _read(self) -> DeviceCheckpoint:
        self._seen = self._files.signature()
        found = self._files.read_checkpoint()
        return found or DeviceCheckpoint(1, "", self.manifest.round, self.manifest.hyper.influence)

    def _enter(self, checkpoint: DeviceCheckpoint) -> None:
        """Go on from the mapped file if it goes on from ``checkpoint``, else from ``checkpoint``."""
        initial = self._bundle.state() if not (checkpoint.base and checkpoint.arrays) else {}
        base = self._files.read_base(checkpoint.base) if checkpoint.base else initial
        self._base = {name: base.get(name, np.zeros(0, np.float32)) for name in _BASE}
        if self._all_trained:
            self._base["theta"] = self._base["shared_theta"]
        self.checkpoint = dataclasses.replace(checkpoint, arrays=_kept(checkpoint))
        path, generation = self._files.slots, checkpoint.generation
        found = Slots.open(path, self._files.purpose, generation, self.sizes, read_only=self.read_only)
        if found is not None and self.read_only:
            self._arrays, self._progress = found.snapshot()
            return
        if found is None:
            if not checkpoint.arrays:
                arrays = {
                    "theta": initial["theta"][self._where],
                    "local_prototypes": initial["local_prototypes"],
                }
            else:
                arrays = {name: array for name, array in checkpoint.arrays.items() if name in ARRAYS}
            for name, size in zip(ARRAYS, self.sizes, strict=True):
                arrays.setdefault(name, np.zeros(size, np.float32))
            if self.read_only:
                self._arrays, self._progress = arrays, checkpoint.progress
                return
            found = Slots.create(path, self._files.purpose, generation, arrays, checkpoint.progress)
        self._slots = found

    def _write(self, checkpoint: DeviceCheckpoint) -> None:
        after = dataclasses.replace(checkpoint, generation=checkpoint.generation + 1)
        self._files.write_checkpoint(after)
        self.checkpoint = dataclasses.replace(after, arrays=_kept(after))


def _kept(checkpoint: DeviceCheckpoint) -> Mapping[str, Vector]:
    """What of a checkpoint's arrays does not lie in the mapped file."""
    return {name: array for name, array in checkpoint.arrays.items() if name in ("kept", "gate")}
