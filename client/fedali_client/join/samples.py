"""A device's data files, as they are when a task needs them: they may be replaced while a device waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedali.bundle.manifest import Manifest
from fedali.data.device import Pair, read_file, read_parts
from fedali.data.npz import read_shapes
from fedali.data.sources.own import ending_of
from fedali.errors import DataError


@dataclass(frozen=True)
class DataFiles:
    """Where a device's data are; validation and test data are optional.

    Args:
        train: the file to train on.
        validation: to choose models by.
        test: to report on.
        settings: of ``--set``, where files are others than the bundle knows: see ``fedali.data.sources.settings``.
        whole: whether ``train`` holds everything, and is split.
        tell: is told notes on what reading them assumed or left out, each once.
    """

    train: Path
    validation: Path | None = None
    test: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    tell: Callable[[str], None] = lambda note: None
    _told: set[str] = field(default_factory=set, init=False, repr=False)

    def counts(self) -> tuple[int, int]:
        """Samples to train on, and to test on; 0 of rows, which no bundle has cut yet. Raises ``DataError`` for files that no model could take."""
        _count(self.validation)
        return _count(self.train), _count(self.test)

    def read(self, part: str, manifest: Manifest) -> Pair | None:
        """Samples [n, *shape] and labels [n] of ``train``, ``validation`` or ``test``; None without any.

        Raises ``DataError`` where they do not fit the model, or there is nothing to train on.
        """
        path = getattr(self, part)
        if self.whole:
            parts, notes = read_parts(self.train, manifest, self.settings)
            pair = parts[part]
        elif path is None:
            return None
        else:
            found = read_file(path, manifest, self.settings)
            pair, notes = (found.x, found.y), found.notes
        for note in notes:
            text = f"{self.train if self.whole else path}: {note}"
            if text not in self._told:
                self._told.add(text)
                self.tell(text)
        return pair

    def training(self, manifest: Manifest) -> Pair:
        """What there is to train on."""
        found = self.read("train", manifest)
        if found is None:
            raise DataError(f"{self.train} holds nothing to train on")
        return found


def _count(path: Path | None) -> int:
    if path is None:
        return 0
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if ending_of(path) != ".npz":
        return 0
    shapes = read_shapes(path)
    for name in "xy":
        if not shapes.get(name):
            raise DataError(
                f"{path} has no array {name}; save it with numpy.savez({path.name}, x=..., y=...)"
            )
    if not shapes["x"][0]:
        raise DataError(f"{path} holds no samples")
    return shapes["x"][0]
