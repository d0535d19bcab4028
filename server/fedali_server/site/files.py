"""A client's data files at a site, read as they are when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from fedali.bundle.manifest import Manifest
from fedali.data.npz import read_shapes
from fedali.data.samples import Labels, check_labels, check_samples, read_samples
from fedali.data.sources.own import read_piece
from fedali.data.sources.own_csv import Piece, check_csv
from fedali.data.sources.reading import PLAIN
from fedali.data.split import split
from fedali.errors import DataError, MisfitError

log = structlog.get_logger("fedali.site")
Pair = tuple[npt.NDArray[Any], Labels]

PARTS = ("train", "validation", "test")
ENDINGS = (".npz", ".csv", ".csv.gz")
SHARES = (
    0.56,
    0.14,
    0.30,
)  # of each class's samples of a file that is split here, as a scenario's are unless it says otherwise


@dataclass(frozen=True)
class ClientFiles:
    """A client's data: a file for each part, ``folder/train.npz`` and the like, or one for all, ``folder`` with an ending.

    The one file is split by class, in time order, without windows that share samples across a border. Files may be replaced while
    a site waits.

    Args:
        folder: that the files are in, or that the one file stands beside.
        stride: rows between the starts of windows of CSV; None for half a window.

    Methods raise ``DataError`` for files that cannot be read, or do not fit the model.
    """

    folder: Path
    stride: int | None = None

    @property
    def there(self) -> bool:
        """Whether the client has data here."""
        return self.folder.is_dir() or any(map(Path.is_file, _named(self.folder)))

    @property
    def whole(self) -> Path | None:
        """The one file for all, if there is one. Raises ``DataError`` where there is something else too."""
        return _one(self.folder, self.folder.is_dir())

    def check(self) -> None:
        """Look at what can be seen without a model: raises ``DataError`` where nothing is to train on, or a file is broken."""
        whole = self.whole
        paths = [whole] if whole is not None else [_one(self.folder / part) for part in PARTS]
        if paths[0] is None:
            raise DataError(
                f"{self.folder} has no train.npz: save it with numpy.savez(train.npz, x=..., y=...), or train.csv, "
                "or remove the folder"
            )
        for path in filter(None, paths):
            if path.suffix != ".npz":
                check_csv(path, self.folder.name, PLAIN)
            else:
                read_shapes(path)

    def stamp(self) -> tuple[str, int, int] | None:
        """Changes with the file that ``train`` reads; None where there is none."""
        path = self.whole or _one(self.folder / PARTS[0])
        if path is None:
            return None
        found = path.stat()
        return path.name, found.st_mtime_ns, found.st_size

    def train(self, manifest: Manifest) -> Pair:
        """Samples [n, *shape] as stored, and labels [n], to train on."""
        found = self._part("train", manifest)
        if found is None:
            raise DataError(f"{self.folder} has nothing to train on")
        return found

    def validation(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return self._part("validation", manifest)

    def test(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return self._part("test", manifest)

    def _part(self, name: str, manifest: Manifest) -> Pair | None:
        whole = self.whole
        if whole is not None:
            stamp = whole.stat().st_mtime_ns, whole.stat().st_size
            return _split(whole, stamp, manifest.input_shape, manifest.classes, self.stride)[name]
        path = _one(self.folder / name)
        if path is None:
            return None
        if path.suffix != ".npz":
            shape, classes = manifest.input_shape, manifest.classes
            return _fitting(_read_whole(path, self.folder.name, shape, self.stride), shape, classes)
        x, y = read_samples(path, manifest)
        if y is None:
            raise DataError(f"{path} has no labels; a site that trains takes an array y beside x")
        return x, y


@lru_cache(maxsize=1)  # a client's parts are read one after another
def _split(
    path: Path, stamp: tuple[int, int], shape: tuple[int, ...], classes: tuple[str, ...], stride: int | None
) -> dict[str, Pair | None]:
    """The parts of the one file of a client by name, None for one without a sample; ``stamp`` changes with the file."""
    piece = _read_whole(path, path.stem, shape, stride)
    x, y = _fitting(piece, shape, classes)
    parts = split(y, piece.recording, piece.start, piece.length, fractions=SHARES, order="time")
    rows = {name: getattr(parts, name) for name in PARTS}
    return {name: (x[where], y[where]) if len(where) else None for name, where in rows.items()}


def _read_whole(path: Path, client: str, shape: tuple[int, ...], stride: int | None) -> Piece:
    if path.suffix != ".npz" and len(shape) != 2:
        raise MisfitError(
            f"{path}: rows of CSV make windows [time, channels], and this model takes {list(shape)}: save .npz",
            "this device's data are rows for windows, and the federation's samples are no windows",
        )
    window = shape[0] if len(shape) == 2 else 1
    piece = read_piece(path, window, stride or max(1, window // 2), client)
    _tell(path, piece.notes)
    return piece


@lru_cache(maxsize=4096)  # a file is read again in every round
def _tell(path: Path, notes: tuple[str, ...]) -> None:
    for note in notes:
        log.info("data", file=str(path), note=note)


def _fitting(piece: Piece, shape: tuple[int, ...], classes: tuple[str, ...]) -> Pair:
    """Samples and labels of a file where they fit the model: a whole number is the class of that name, else of that place."""
    x, labels = check_samples(piece.x, shape, f"{piece.where}: x"), piece.labels
    if piece.class_names is not None and all(isinstance(label, int) for label in labels):
        places = check_labels(np.array(labels), piece.class_names, len(x), f"{piece.where}: y")
        labels = [piece.class_names[place] for place in places]
    elif all(str(label) in classes for label in labels):
        labels = [str(label) for label in labels]
    return x, check_labels(np.array(labels), classes, len(x), f"{piece.where}: y")


def _one(stem: Path, other: bool = False) -> Path | None:
    """The one file of a name, with whichever ending; ``DataError`` for two, or for one where there is ``other`` too."""
    found = [path for path in _named(stem) if path.is_file()]
    if len(found) > 1 or (found and other):
        second = stem if other else found[1]
        raise DataError(f"{found[0]} and {second} are both there; leave one of them")
    return found[0] if found else None


def _named(stem: Path) -> list[Path]:
    return [stem.with_name(stem.name + ending) for ending in ENDINGS]
