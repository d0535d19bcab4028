"""The folder of a site's data: ``NAME/train.npz``, ``validation.npz`` and ``test.npz`` for each of its devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import structlog

from fedali.bundle.manifest import Manifest
from fedali.data.npz import read_shapes
from fedali.data.samples import Labels, read_samples
from fedali.errors import DataError, did_you_mean

Pair = tuple[npt.NDArray[Any], Labels]

log = structlog.get_logger("fedali.site")
_SHOWN = 3  # folders of strangers that are named


@dataclass(frozen=True)
class ClientFiles:
    """A client's data files in ``folder``, as they are when they are read: they may be replaced while a site waits."""

    folder: Path

    @property
    def there(self) -> bool:
        """Whether the client has data here."""
        return self.folder.is_dir()

    def train(self, manifest: Manifest) -> Pair:
        """Samples [n, *shape] as stored, and labels [n], to train on. Raises ``DataError`` where they do not fit the model."""
        return _read(self.folder / "train.npz", manifest)

    def validation(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return _read_optional(self.folder / "validation.npz", manifest)

    def test(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return _read_optional(self.folder / "test.npz", manifest)


def open_folder(path: Path, names: Sequence[str]) -> dict[str, ClientFiles]:
    """The files of the devices ``names``, by those; devices may lack a folder.

    Raises ``DataError`` when no device has one, when one has nothing to train on, or a file that is broken. Folders of nobody are warned of.
    """
    example = f"{path / names[0]}/train.npz" if names else ""
    if not path.is_dir():
        raise DataError(
            f"--data {path}: there is no such folder; it has to hold a folder for each device: {example}"
        )
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    found = {name: ClientFiles(path / name) for name in names}
    strangers = [name for name in folders if name not in found]
    if len(strangers) == len(folders):
        hint = (
            f"it has {strangers[0]!r} ({did_you_mean(strangers[0], names)})"
            if strangers
            else "it has no folder"
        )
        raise DataError(
            f"--data {path} holds data of no device of this site; {hint}; it has to be like {example}"
        )
    for name in folders:
        if name in found and not (path / name / "train.npz").is_file():
            raise DataError(
                f"{path / name} has no train.npz: save it with numpy.savez(train.npz, x=..., y=...), "
                "or remove the folder"
            )
    for files in found.values():
        for one in sorted(files.folder.glob("*.npz")):
            read_shapes(one)  # now, not in the middle of a round
    if strangers:
        hints = [f"{name!r} ({did_you_mean(name, names)})" for name in strangers[:_SHOWN]]
        more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
        log.warning(
            "folders of no device of this site are not used", data=str(path), folders=", ".join(hints) + more
        )
    return found


def _read(path: Path, manifest: Manifest) -> Pair:
    x, y = read_samples(path, manifest)
    if y is None:
        raise DataError(f"{path} has no labels; a site that trains takes an array y beside x")
    return x, y


def _read_optional(path: Path, manifest: Manifest) -> Pair | None:
    return _read(path, manifest) if path.exists() else None
