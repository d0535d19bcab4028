"""Large sets once they are cut, kept in the user's cache folder: a study of many runs parses their text once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedali.data.dataset import Dataset
from fedali.data.npz import read_arrays
from fedali.data.sources.public.facts import Wanted
from fedali.errors import DataError, FedaliError
from fedali.support.files import atomic
from fedali.support.places import cache_folder
from fedali.version import __version__

LARGE = 50_000_000  # bytes, of text or archives; what is smaller is read in a few seconds
_FORM = 1  # to be raised when a reader makes other windows of the same files
_MOST = 4  # files that are kept, the latest
_ARRAYS = ("x", "y", "client", "recording", "start")


def kept(
    found: Path, wanted: Wanted, window: int, stride: int, cache: Path | None, make: Callable[[], Dataset]
) -> Dataset:
    """What ``make`` gives, or gave before of the same files with the same choice; a disk that is full is no error."""
    files = _files(found)
    if sum(size for _, size, _ in files) < LARGE:
        return make()
    known = repr((__version__, _FORM, wanted, window, stride, str(found.absolute()), files))
    try:
        folder = cache / "cut" if cache is not None else cache_folder("cut")
    except FedaliError:  # no folder, or no platformdirs to find one
        return make()
    path = folder / f"{wanted.facts.name}-{hashlib.sha256(known.encode()).hexdigest()[:32]}.npz"
    if path.exists():
        with contextlib.suppress(DataError):  # half of it, or another's: it is made anew
            return _read(path, wanted, stride)
    data = make()
    with contextlib.suppress(FedaliError), atomic(path) as temporary:
        np.savez(
            temporary,
            **{name: getattr(data, name) for name in _ARRAYS},
            client_names=np.array(data.client_names),
            notes=np.array(data.notes, np.str_),
            length=np.array(data.length),
        )
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime_ns)[:-_MOST]:
            old.unlink()
    return data


def _files(found: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file."""
    files = sorted(found.rglob("*")) if found.is_dir() else [found] if found.is_file() else []
    states = [(file.relative_to(found).as_posix(), file.stat()) for file in files if file.is_file()]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _read(path: Path, wanted: Wanted, stride: int) -> Dataset:
    arrays = read_arrays(path)
    try:
        kept: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        return Dataset(
            name=wanted.facts.name,
            **kept,
            client_names=tuple(arrays["client_names"].tolist()),
            class_names=wanted.facts.classes,
            channel_names=wanted.channels,
            length=int(arrays["length"]),
            licence=wanted.facts.licence,
            citation=wanted.facts.citation,
            notes=tuple(arrays["notes"].tolist()),
            interval=1 / wanted.facts.rate,
            stride=stride,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is none of FedAli's") from error
