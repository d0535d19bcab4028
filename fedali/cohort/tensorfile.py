"""Safetensors files written one piece after another, so that a file of ten thousand models needs memory for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from fedali.errors import CheckpointError
from fedali.support.files import atomic

METADATA = "fedali"  # key of what a file says of itself

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Piece:
    """Tensors that lie one after another in one flat vector.

    Args:
        sizes: their lengths by name, in order.
        read: fetches the vector when it is its turn.
    """

    sizes: Mapping[str, int]
    read: Callable[[], Vector]


def write_tensors(path: Path, pieces: Iterable[Piece], metadata: Mapping[str, str]) -> None:
    """Write flat float32 tensors as a safetensors file, atomically; the same pieces give the same bytes.

    Raises ``FedaliError`` when the disk is full.
    """
    pieces = list(pieces)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for piece in pieces:
        for name, size in piece.sizes.items():
            begin, end = end, end + 4 * size
            header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format's alignment
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for piece in pieces:
            data = np.ascontiguousarray(piece.read(), "<f4").tobytes()
            if len(data) != 4 * sum(piece.sizes.values()):
                raise ValueError(f"{len(data) // 4} values for {dict(piece.sizes)}")
            stream.write(data)


def read_tensors(path: Path) -> tuple[dict[str, Vector], dict[str, str]]:
    """Tensors and metadata of a safetensors file; ``CheckpointError`` when it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise broken(path, str(error).splitlines()[0]) from error


def broken(path: Path, why: str) -> CheckpointError:
    """What to raise for a file of a run that cannot be read."""
    return CheckpointError(
        f"cannot read {path}: {why}. Delete the folder {path.parent} to run this part again"
    )
