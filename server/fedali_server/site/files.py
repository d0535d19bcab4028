"""A client's data files at a site, read as they are when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog

from fedali.bundle.manifest import Manifest
from fedali.data.device import PARTS, Pair, read_file, read_parts
from fedali.data.npz import read_shapes
from fedali.data.sources.own import ENDINGS, ending_of
from fedali.data.sources.own_csv import check_csv
from fedali.data.sources.reading import PLAIN, ForModel
from fedali.data.sources.settings import with_settings
from fedali.errors import DataError

log = structlog.get_logger("fedali.site")


@dataclass(frozen=True)
class ClientFiles:
    """A client's data: a file for each part, ``folder/train.npz`` and the like, or one for all, ``folder`` with an ending.

    The one file is split by class, in time order, without windows that share samples across a border. Files may be replaced while
    a site waits.

    Args:
        folder: that the files are in, or that the one file stands beside.
        settings: of ``--set``, where files are others than the bundle knows: see ``fedali.data.sources.settings``.

    Methods raise ``DataError`` for files that cannot be read, or do not fit the model.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

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
            if ending_of(path) == ".npz":
                read_shapes(path)
            else:
                self._check_header(path)

    def _check_header(self, path: Path) -> None:
        """Refuse what no bundle could mend; a bundle may know another name of a column that is missing."""
        reading = with_settings(PLAIN, self.settings, "--set")
        try:
            check_csv(path, self.folder.name, reading)
        except DataError as error:
            if self.settings.get("columns.label") is not None:
                raise
            check_csv(path, self.folder.name, reading, ForModel(may_lack=frozenset({"label"})))
            log.warning("data", file=str(path), note=f"{error}; the federation's bundle may know it")

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
            parts, notes = read_parts(whole, manifest, self.settings, self.folder.name)
            _tell(whole, notes)
            return parts[name]
        path = _one(self.folder / name)
        if path is None:
            return None
        found = read_file(path, manifest, self.settings, client=self.folder.name)
        _tell(path, found.notes)
        return found.x, found.y


@lru_cache(maxsize=4096)  # a file is read again in every round
def _tell(path: Path, notes: tuple[str, ...]) -> None:
    for note in notes:
        log.info("data", file=str(path), note=note)


def _one(stem: Path, other: bool = False) -> Path | None:
    """The one file of a name, with whichever ending; ``DataError`` for two, or for one where there is ``other`` too."""
    found = [path for path in _named(stem) if path.is_file()]
    if len(found) > 1 or (found and other):
        second = stem if other else found[1]
        raise DataError(f"{found[0]} and {second} are both there; leave one of them")
    return found[0] if found else None


def _named(stem: Path) -> list[Path]:
    return [stem.with_name(stem.name + ending) for ending in ENDINGS]
