"""What training changes, in a mapped file: a process killed at any moment loses the step it was at, and nothing else.

The file has two slots. A step reads one and writes the other, which costs nothing over memory of its own; one aligned
word, the tick, then says that the other is the complete one. The kernel keeps the pages of a killed process, but writes
them to the disk in any order: after a power cut the file means nothing. It names the boot that it was written under, and
the generation of the checkpoint that it goes on from, and counts only where both are still the same.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedali.support.files import reporting

Vector = npt.NDArray[np.float32]

ARRAYS = ("theta", "first_moment", "second_moment", "local_prototypes")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_PAGE, _LINE = 4096, 64
_HEADER = struct.Struct("<8s32s36s4x4Q")  # magic, what for, boot, sizes of the arrays
_MAGIC = b"fedali 1"
_GENERATION, _TICK = 256, 320  # places of two words, each in a cache line of its own
_RECORD = struct.Struct("<6Q5d32s")
_RECORD_SPACE = 256


class Sizes(NamedTuple):
    """Lengths of what training changes: theta [T], its moments ([T] or [0]), local prototypes [L]."""

    theta: int
    first_moment: int
    second_moment: int
    local_prototypes: int


class Progress(NamedTuple):
    """How far training is.

    Args:
        fit: number of the latest fit, 0 before the first.
        step: steps done in it.
        total: steps it takes; it is under way while ``step < total``.
        steps: of all fits.
        samples: seen in all steps, a sample counts in each epoch.
        trained_on: samples of the latest fit, each once.
        loss: sum over the epoch's samples so far.
        correct: right predictions in the epoch so far.
        weight: samples of the epoch so far.
        last_loss: mean of the latest complete epoch.
        last_accuracy: of the latest complete epoch, while training.
        identity: 32 bytes that tell the fit's data and settings from others.
    """

    fit: int = 0
    step: int = 0
    total: int = 0
    steps: int = 0
    samples: int = 0
    trained_on: int = 0
    loss: float = 0.0
    correct: float = 0.0
    weight: float = 0.0
    last_loss: float = 0.0
    last_accuracy: float = 0.0
    identity: bytes = bytes(32)

    @property
    def under_way(self) -> bool:
        """Whether the latest fit has steps left."""
        return self.step < self.total


class Slots:
    """The mapped file; ``open`` finds one that counts, ``create`` makes one."""

    def __init__(self, memory: npt.NDArray[np.uint8], sizes: Sizes) -> None:
        self.memory, self.sizes = memory, sizes
        words = memory[:_PAGE].view(np.uint64)
        self._generation = words[_GENERATION // 8 : _GENERATION // 8 + 1]
        self._tick = words[_TICK // 8 : _TICK // 8 + 1]
        self.arrays = tuple(self._arrays(slot) for slot in (0, 1))

    @classmethod
    def create(
        cls,
        path: Path,
        purpose: bytes,
        generation: int,
        arrays: Mapping[str, Vector],
        progress: Progress,
    ) -> Slots:
        """A new file at ``path`` that holds ``arrays``, which ``ARRAYS`` names, in both slots.

        ``purpose`` are 32 bytes that say what the state belongs to. All of the file's space is taken now, so that a
        full disk is an error here (``FedaliError``) and not a fault in the middle of a step.
        """
        sizes = Sizes(*(arrays[name].size for name in ARRAYS))
        length = _PAGE + 2 * _slot_space(sizes)
        with reporting(path):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                _take_space(handle, length)
                memory = np.memmap(name, np.uint8, "r+", shape=(length,))
                slots = cls(memory, sizes)
                for slot in (0, 1):
                    for field in ARRAYS:
                        slots.arrays[slot][field][...] = arrays[field]
                    slots._write(slot, progress)
                _HEADER.pack_into(memory.data, 0, _MAGIC, purpose, boot_id(), *sizes)
                slots.set_generation(generation)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
        return slots

    @classmethod
    def open(
        cls, path: Path, purpose: bytes, generation: int, sizes: Sizes, *, read_only: bool = False
    ) -> Slots | None:
        """The file at ``path``, or None where there is none that counts."""
        try:
            memory = np.memmap(path, np.uint8, "r" if read_only else "r+")
        except (OSError, ValueError):  # not there, or empty
            return None
        if len(memory) != _PAGE + 2 * _slot_space(sizes) or not boot_id():
            return None
        if bytes(memory[: _HEADER.size]) != _HEADER.pack(_MAGIC, purpose, boot_id(), *sizes):
            return None
        slots = cls(memory, sizes)
        return slots if slots.generation == generation else None

    @property
    def generation(self) -> int:
        """Of the checkpoint that the state goes on from."""
        return int(self._generation[0])

    def set_generation(self, generation: int) -> None:
        """Say that a checkpoint of this state, or what followed from it, was written."""
        self._generation[0] = generation

    @property
    def tick(self) -> int:
        """How often ``commit`` was called."""
        return int(self._tick[0])

    @property
    def now(self) -> int:
        """The slot that is complete, 0 or 1; the other may be written to."""
        return int(self._tick[0]) & 1

    @property
    def current(self) -> Mapping[str, Vector]:
        """Views of the complete slot's arrays."""
        return self.arrays[self.now]

    @property
    def spare(self) -> Mapping[str, Vector]:
        """Views of the other slot's arrays, to be filled before ``commit``."""
        return self.arrays[1 - self.now]

    @property
    def progress(self) -> Progress:
        """Of the complete slot."""
        return Progress(*_RECORD.unpack_from(self.memory.data, self._start(self.now)))

    def commit(self, progress: Progress) -> None:
        """The other slot is complete from now on, with ``progress``."""
        self._write(1 - self.now, progress)
        self._tick[0] += np.uint64(1)

    def snapshot(self) -> tuple[dict[str, Vector], Progress]:
        """A copy of the complete slot, while another process trains."""
        while True:
            tick = self.tick
            arrays = {name: array.copy() for name, array in self.current.items()}
            progress = self.progress
            if self.tick == tick:  # else the writer may have come round to the slot
                return arrays, progress

    def _write(self, slot: int, progress: Progress) -> None:
        _RECORD.pack_into(self.memory.data, self._start(slot), *progress)

    def _start(self, slot: int) -> int:
        return _PAGE + slot * _slot_space(self.sizes)

    def _arrays(self, slot: int) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        offset = self._start(slot) + _RECORD_SPACE
        for name, size in zip(ARRAYS, self.sizes, strict=True):
            found[name] = self.memory[offset : offset + 4 * size].view(np.float32)
            offset += _rounded(4 * size, _LINE)
        return found


def boot_id() -> bytes:
    """36 bytes that change when the machine starts; none where the system does not tell."""
    try:
        return BOOT_ID.read_bytes().strip()[:36]
    except OSError:
        return b""


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _slot_space(sizes: Sizes) -> int:
    return _rounded(_RECORD_SPACE + sum(_rounded(4 * size, _LINE) for size in sizes), _PAGE)


def _take_space(handle: int, length: int) -> None:
    allocate: Any = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        allocate(handle, 0, length)
        return
    for start in range(0, length, 1 << 20):
        os.pwrite(handle, bytes(min(1 << 20, length - start)), start)
