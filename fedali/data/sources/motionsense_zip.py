"""Decoding the CSVs of MotionSense's zip, in memory: nothing is unpacked to disk."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedali.data.windows import cut_windows
from fedali.errors import DataError

WINDOW = 128
Arithmetic = Literal["float64", "float64 by float32", "float32"]
ARITHMETICS: tuple[Arithmetic, ...] = ("float64", "float64 by float32", "float32")
"""How decimals become float16: summed and rounded once, rounded to float32 on the way, or summed in float32."""

LEFT_OUT = {("sit", 13, 1)}
"""A byte copy of sit_5/sub_1.csv."""

_MEMBER = re.compile(r"(?:^|/)([a-z]{3})_(\d{1,2})/sub_(\d{1,2})\.csv$")
_MAX_MEMBER_BYTES = 20_000_000
_MAX_MEMBERS = 2_000
_AXES = "xyz"
_COLUMNS = tuple(f"{sensor}.{a}" for sensor in ("userAcceleration", "gravity", "rotationRate") for a in _AXES)


def decode_zip(
    path: Path, activities: Sequence[str], window: int, stride: int, arithmetic: Arithmetic = "float64"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Windows x [N, window, 6] float16 with y, subject and trial [N], ordered by subject, then trial.

    Reads each ``<activity>_<trial>/sub_<subject>.csv`` wherever it lies in the zip and passes over everything else.
    Raises ``DataError`` for a zip, member or CSV that cannot be read, is oversized, or appears twice.
    """
    files: dict[tuple[int, int, int], npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for (activity, trial, subject), member in _members(archive).items():
                if activity in activities:
                    with archive.open(member) as stream:
                        signal = read_signal(stream.read(), member.filename, arithmetic)
                    files[subject, activities.index(activity), trial] = cut_windows(signal, window, stride)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"it is no readable zip ({error})") from error
    recordings = sorted(files, key=lambda key: (key[0], key[2], key[1]))
    keys = np.array([key for key in recordings for _ in files[key]], np.int64).reshape(-1, 3)
    cut = [files[key] for key in recordings]
    x = np.concatenate(cut) if cut else np.empty((0, window, 6), np.float16)
    return x, keys[:, 1], keys[:, 0], keys[:, 2]


def _members(archive: zipfile.ZipFile) -> dict[tuple[str, int, int], zipfile.ZipInfo]:
    """The zip's recordings by (activity, trial, subject)."""
    found: dict[tuple[str, int, int], zipfile.ZipInfo] = {}
    for member in archive.infolist():
        match = _MEMBER.search(member.filename)
        if match is None or "__MACOSX" in member.filename:
            continue
        key = (match[1], int(match[2]), int(match[3]))
        if key in LEFT_OUT:
            continue
        if key in found:
            raise DataError(f"{member.filename} and {found[key].filename} are the same recording")
        if member.file_size > _MAX_MEMBER_BYTES or len(found) >= _MAX_MEMBERS:
            raise DataError(f"{member.filename} makes it larger than MotionSense can be")
        found[key] = member
    if not found:
        raise DataError("it holds no <activity>_<trial>/sub_<k>.csv")
    return found


def read_signal(text: bytes, name: str, arithmetic: Arithmetic = "float64") -> npt.NDArray[Any]:
    r"""One CSV as [t, 6] float16: total acceleration (user's plus gravity) [g], then rotation rate [rad/s].

    >>> header = ",".join(["", *_COLUMNS])
    >>> read_signal(f"{header}\n0,.25,.5,.75,1,1,1,4,5,6\n".encode(), "a.csv")
    array([[1.25, 1.5 , 1.75, 4.  , 5.  , 6.  ]], dtype=float16)
    """
    try:
        header, _, body = text.decode("utf-8-sig").partition("\n")
        names = [cell.strip().strip('"') for cell in header.split(",")]
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise DataError(f"{name} lacks the columns {', '.join(missing)}")
        if not body.strip():
            return np.empty((0, 6), np.float16)
        columns = [names.index(column) for column in _COLUMNS]
        values = np.loadtxt(io.StringIO(body), np.float64, delimiter=",", usecols=columns, ndmin=2)
    except ValueError as error:  # undecodable bytes, cells that are no numbers, short rows
        raise DataError(f"{name} is no table of numbers ({str(error).splitlines()[0]})") from error
    if arithmetic == "float32":
        values = values.astype(np.float32)
    signal = np.concatenate([values[:, 0:3] + values[:, 3:6], values[:, 6:9]], axis=1)
    if arithmetic == "float64 by float32":
        signal = signal.astype(np.float32)
    with np.errstate(over="ignore"):  # nonsense values become infinite and are refused with the checksum
        return signal.astype(np.float16)
