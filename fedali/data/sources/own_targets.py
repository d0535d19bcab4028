"""Targets in a user's own files, of tasks that learn numbers or several labels: columns of a CSV, or ``y`` [n, T] of a ``.npz``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.sources.reading import Columns, ForModel, Reading
from fedali.errors import DataError, did_you_mean
from fedali.targets import Kind

Array = npt.NDArray[Any]

NAMES = ("target_names", "class_names")  # arrays of a .npz that name the targets
_WHAT = {"labels": "several labels for each sample", "numbers": "numbers"}


def target_columns(path: Path, header: Sequence[str], columns: Columns, model: ForModel) -> tuple[int, ...]:
    """Where the targets' columns are; none where they may be missing and are. Raises ``DataError`` for one that is not there."""
    names = columns.target or ()
    if names and "label" in model.may_lack and not set(names) & set(header):
        return ()
    for name in names:
        if name not in header:
            known = did_you_mean(name, filter(None, header))
            raise DataError(f"{path} lacks the column {name!r} that data.columns.target names; {known}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: data.columns.target names a column twice: {', '.join(names)}")
    return tuple(header.index(name) for name in names)


def check_kind(path: Path, reading: Reading) -> None:
    """Raise ``DataError`` where the columns that are named are not what the task learns."""
    if reading.targets == "classes" and reading.columns.target:
        raise DataError(
            f"{path}: data.columns.target is for tasks of numbers or several labels; set task.name, or name data.columns.label instead"
        )
    if reading.targets != "classes" and not reading.columns.target:
        raise DataError(
            f"{path}: the task learns {_WHAT[reading.targets]}; say which columns hold them: data.columns.target = [...]"
        )


def of_windows(values: Array, begins: Array, window: int, kind: Kind) -> Array:
    """Targets [n, T] of windows that begin at rows ``begins`` [n], of those of rows [rows, T]: their mean; of labels those that most rows have."""
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), np.nan_to_num(values)]), axis=0)
    found: Array = (sums[begins + window] - sums[begins]) / window
    holes = np.cumsum(np.concatenate([[0], np.isnan(values).any(1)]))
    found[holes[begins + window] > holes[begins]] = np.nan
    if kind == "labels":
        found = np.where(np.isnan(found), np.nan, found > 0.5)
    return found.astype(np.float32)


def targets_of(y: Array, samples: int, where: str, kind: Kind, *, may_lack: bool = False) -> Array:
    """``y`` as targets [n, T] float32; of one target [n] will do.

    Raises ``DataError``, naming the first row, for other shapes, values that are not finite, and labels that are neither 0 nor 1.
    ``may_lack``: NaN says that a sample has no target.
    """
    y = y[:, None] if y.shape == (samples,) else y
    if y.ndim != 2 or len(y) != samples or not y.shape[1]:
        raise DataError(
            f"{where}: y has shape {list(y.shape)}; the task learns {_WHAT[kind]}: make it [{samples}, targets]"
        )
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: y is {y.dtype}, and the task learns {_WHAT[kind]}: make it numbers")
    with np.errstate(over="ignore"):  # becomes infinite
        found = y.astype(np.float32)
    wrong = ~np.isfinite(found) & ~(may_lack & np.isnan(found))
    if kind == "labels":
        wrong |= (found != 0) & (found != 1) & ~np.isnan(found)
    if wrong.any():
        row, place = np.argwhere(wrong)[0].tolist()
        what = "0 or 1" if kind == "labels" else "a finite number"
        raise DataError(
            f"{where}: y of row {row} has {y[row, place]} where {what} has to be; repair it, or leave the row out"
        )
    return found


def names_of(arrays: Mapping[str, Array], count: int, where: str) -> tuple[str, ...]:
    """Names of ``count`` targets in a ``.npz``: of an array ``target_names``, or made of numbers."""
    for key in NAMES:
        if key in arrays:
            names = tuple(str(name) for name in arrays[key].ravel())
            if len(names) != count:
                raise DataError(
                    f"{where}: {key} has {len(names)} names for {count} columns of y; give one each"
                )
            return names
    return tuple(f"target-{k + 1}" for k in range(count))
