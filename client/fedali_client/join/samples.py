"""A device's data files, as they are when a task needs them: they may be replaced while a device waits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fedali.bundle.manifest import Manifest
from fedali.data.npz import read_shapes
from fedali.data.samples import Labels, read_samples
from fedali.errors import DataError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DataFiles:
    """Where a device's data are: ``.npz`` files with ``x`` and ``y``; validation and test data are optional."""

    train: Path
    validation: Path | None = None
    test: Path | None = None

    def counts(self) -> tuple[int, int]:
        """Samples to train on, and to test on. Raises ``DataError`` for files that no model could take."""
        _count(self.validation)
        return _count(self.train), _count(self.test)

    def read(self, path: Path, manifest: Manifest) -> tuple[Array, Labels]:
        """Samples [n, *shape] and labels [n] of one of the files. Raises ``DataError`` where they do not fit the model."""
        x, y = read_samples(path, manifest)
        if y is None:
            raise DataError(f"{path} has no labels; joining takes an array y beside x")
        return x, y


def _count(path: Path | None) -> int:
    if path is None:
        return 0
    if not path.exists():
        raise DataError(f"{path} does not exist")
    shapes = read_shapes(path)
    for name in "xy":
        if not shapes.get(name):
            raise DataError(
                f"{path} has no array {name}; save it with numpy.savez({path.name}, x=..., y=...)"
            )
    if not shapes["x"][0]:
        raise DataError(f"{path} holds no samples")
    return shapes["x"][0]
