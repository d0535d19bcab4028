"""Data by what a user calls them: the name of a built-in source, or a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedali.data.dataset import Dataset
from fedali.data.sources.digits import load_digits_dataset
from fedali.data.sources.motionsense import load_motionsense
from fedali.data.sources.own import load_own
from fedali.data.sources.reading import PLAIN, Reading
from fedali.errors import SettingsError, did_you_mean

SOURCES = ("digits", "motionsense")  # what may be named, besides a path
WINDOW, STRIDE = 128, 64  # raw samples, of windows that are cut from CSV


def load_named(
    source: str,
    *,
    window: int = WINDOW,
    stride: int = STRIDE,
    reading: Reading = PLAIN,
    subjects: Sequence[int] | None = None,
    windows_per_client: int | None = None,
    seed: int = 0,
    what: str = "data.source",
) -> Dataset:
    """The data set ``source``; other arguments are for those sources that take them.

    Raises ``SettingsError`` for a name that is none, calling it ``what``, and what the sources raise.
    """
    if source == "digits":
        return load_digits_dataset()
    if source == "motionsense":
        return load_motionsense(subjects=subjects, windows_per_client=windows_per_client, seed=seed)
    path = Path(source)
    if not path.suffix and not path.exists():
        raise SettingsError(f"{what} {path.name!r} is no file or folder; {did_you_mean(path.name, SOURCES)}")
    return load_own(path, window=window, stride=stride, reading=reading)
