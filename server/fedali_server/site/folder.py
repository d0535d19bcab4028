"""The folder of a site's data: for each of its devices a folder ``NAME`` with ``train.npz`` and the like, or one file ``NAME.npz``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from fedali.data.sources.own import ENDINGS
from fedali.errors import DataError, did_you_mean
from fedali_server.site.files import ClientFiles

log = structlog.get_logger("fedali.site")
_SHOWN = 3  # strangers that are named


def open_folder(
    path: Path, names: Sequence[str], settings: Mapping[str, Any] | None = None
) -> dict[str, ClientFiles]:
    """The files of the devices ``names``, by those, see ``ClientFiles``; devices may lack any.

    Raises ``DataError`` when no device has any, when one has nothing to train on, or a file that is broken. What is of nobody is warned of.
    """
    example = f"{path / names[0]}/train.npz" if names else ""
    if not path.is_dir():
        raise DataError(
            f"--data {path}: there is no such folder; it has to hold a folder for each device: {example}"
        )
    there = sorted(filter(None, (_name(entry) for entry in path.iterdir())))
    found = {name: ClientFiles(path / name, settings or {}) for name in names}
    strangers = [name for name in there if name not in found]
    if len(strangers) == len(there):
        hint = (
            f"it has {strangers[0]!r} ({did_you_mean(strangers[0], names)})"
            if strangers
            else "it has no folder"
        )
        raise DataError(
            f"--data {path} holds data of no device of this site; {hint}; it has to be like {example}"
        )
    for files in found.values():
        if files.there:
            files.check()  # now, not in the middle of a round
    if strangers:
        hints = [f"{name!r} ({did_you_mean(name, names)})" for name in strangers[:_SHOWN]]
        more = f" and {len(strangers) - _SHOWN} more" if len(strangers) > _SHOWN else ""
        log.warning(
            "data of no device of this site are not used", data=str(path), names=", ".join(hints) + more
        )
    return found


def _name(entry: Path) -> str | None:
    """Whose data a file or folder may be."""
    if entry.name.startswith("."):
        return None
    if entry.is_dir():
        return entry.name
    ending = next(filter(entry.name.endswith, ENDINGS), None)
    return None if ending is None else entry.name.removesuffix(ending)
