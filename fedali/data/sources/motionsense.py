"""MotionSense: 24 people, six activities, an iPhone in the front pocket at 50 Hz [1].

Windows of 128 samples (2.56 s), stride 64, of total acceleration [g] and rotation rate [rad/s]. They come from a folder
that holds ``motionsense.npz``, from the cache, or from the owner's repository, whose zip is decoded and must give
exactly the windows that ``CHECKSUM`` stands for.

[1] Malekzadeh, Clegg, Cavallaro, Haddadi: Mobile Sensor Data Anonymization. IoTDI 2019, doi:10.1145/3302505.3310068.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import Dataset
from fedali.data.npz import read_arrays
from fedali.data.sources.download import Progress, download, locked
from fedali.data.sources.motionsense_zip import ARITHMETICS, WINDOW, decode_zip
from fedali.errors import DataError, SettingsError
from fedali.schema import Schema
from fedali.support.files import atomic
from fedali.support.places import cache_folder

URL = "https://github.com/mmalekzadeh/motion-sense/raw/master/data/A_DeviceMotion_data.zip"
CHECKSUM = "1a742fb9ef092cfebcc63f2f3bd12140e70297f4fbf2bf1b9e5baeac367513d4"
"""``windows_checksum`` of all 21,380 windows."""

STRIDE = 64
ACTIVITIES = ("dws", "ups", "sit", "std", "wlk", "jog")
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
SCHEMA = Schema(
    "motionsense", (WINDOW, len(CHANNELS)), ACTIVITIES, CHANNELS, ("g",) * 3 + ("rad/s",) * 3, rate=50.0
)

_FILE, _ZIP = "motionsense.npz", "A_DeviceMotion_data.zip"
_MAX_ZIP_BYTES = 200_000_000  # the CSVs are about 150 MB unpacked


@dataclass(frozen=True, eq=False)
class _Windows:
    """The arrays of ``motionsense.npz``: x [N, 128, 6] float16, y, subject and trial [N]."""

    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    subject: npt.NDArray[np.int64]
    trial: npt.NDArray[np.int64]


def load_motionsense(
    folder: Path | None = None,
    *,
    subjects: Sequence[int] | None = None,
    windows_per_client: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    url: str = URL,
    checksum: str = CHECKSUM,
    progress: Progress | None = None,
) -> Dataset:
    """MotionSense, one client per person: ``x`` [N, 128, 6] float16.

    Looked for in ``folder`` (or the one that the environment variable ``FEDALI_DATA`` names), which then has to hold
    ``motionsense.npz`` or ``A_DeviceMotion_data.zip``, or be one of those; without either, in ``cache`` (the user's cache folder); else downloaded there from ``url`` and
    kept. ``subjects`` (1..24) keeps some people, ``windows_per_client`` a random subset of that many windows of each,
    drawn from ``seed`` and the person alone, so that choosing other people does not change it.

    Raises ``DataError`` for a missing or broken file and for a download that fails or decodes to other windows,
    ``SettingsError`` for unknown subjects, ``MissingExtraError`` without requests or platformdirs when they are needed.
    """
    if folder is None and os.environ.get("FEDALI_DATA"):
        folder = Path(os.environ["FEDALI_DATA"])
    if folder is not None:
        path = _within(Path(folder))
        windows = _read_npz(path) if path.suffix == ".npz" else _decoded(path, checksum)
    else:
        cache = Path(cache) if cache is not None else cache_folder("")
        path = cache / _FILE
        windows = _from_cache(cache, url, checksum, progress)
    return _choose(_to_dataset(windows, path), subjects, windows_per_client, seed)


def windows_checksum(
    x: npt.NDArray[Any], y: npt.ArrayLike, subject: npt.ArrayLike, trial: npt.ArrayLike
) -> str:
    """SHA-256 over the sorted SHA-256 digests of the windows: the same whatever their order.

    A window's digest covers its values as little-endian float16, then label, subject and trial as little-endian int64.

    >>> x = np.arange(12.0).reshape(2, 3, 2)
    >>> windows_checksum(x, [0, 1], [1, 1], [1, 2]) == windows_checksum(x[::-1], [1, 0], [1, 1], [2, 1])
    True
    """
    values = np.ascontiguousarray(x, "<f2")
    labels = np.stack([np.asarray(part) for part in (y, subject, trial)], axis=1).astype("<i8")
    digests = [
        hashlib.sha256(v.tobytes() + n.tobytes()).digest() for v, n in zip(values, labels, strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _from_cache(cache: Path, url: str, checksum: str, progress: Progress | None) -> _Windows:
    """The windows from ``cache``, put there first when they are missing; one process at a time."""
    path = cache / _FILE
    with locked(cache):
        if path.is_file():
            try:
                windows = _read_npz(path)
            except DataError:
                windows = None
            if windows is not None and _checksum(windows) == checksum:
                return windows
            path.unlink()  # half a cache, or one of another version: make it anew
        windows = _from_source(cache, url, checksum, progress)
        with atomic(path) as temporary:
            np.savez_compressed(
                temporary,
                x=windows.x,
                y=windows.y.astype(np.int8),
                subject=windows.subject.astype(np.int8),
                trial=windows.trial.astype(np.int8),
                activity_names=np.array(ACTIVITIES),
                channel_names=np.array(CHANNELS),
            )
    return windows


def _within(folder: Path) -> Path:
    """The file that the windows are in."""
    if folder.is_file():
        return folder
    found = next((folder / name for name in (_FILE, _ZIP) if (folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"{folder / _FILE} does not exist; FEDALI_DATA must name the folder that holds {_FILE}, or {_ZIP} as downloaded"
        )
    return found


def _decoded(path: Path, checksum: str) -> _Windows:
    """The windows of the owner's zip; ``DataError`` unless they are the known ones."""
    try:
        return _decode(path, checksum)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}; get it from {URL}") from error


def _decode(path: Path, checksum: str) -> _Windows:
    # Six-digit decimals can fall so near the middle of two float16 numbers that float32 on the way decides.
    for arithmetic in ARITHMETICS:
        windows = _Windows(*decode_zip(path, ACTIVITIES, WINDOW, STRIDE, arithmetic))
        if len(windows.x) and _checksum(windows) == checksum:
            return windows
    raise DataError("it decodes to other windows than the published ones")


def _from_source(cache: Path, url: str, checksum: str, progress: Progress | None) -> _Windows:
    """Download the owner's zip unless it lies in ``cache``, decode it, and refuse other windows than the known ones."""
    path = cache / _ZIP
    if not path.is_file():
        try:
            download(url, path, max_bytes=_MAX_ZIP_BYTES, progress=progress)
        except DataError as error:
            raise DataError(
                f"{error}; set FEDALI_DATA to a folder with {_FILE}, or put the zip at {path}"
            ) from error
    try:
        return _decode(path, checksum)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; set FEDALI_DATA to a folder with {_FILE}"
        ) from error
    except DataError as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"refused and removed {path}: {error}; try again, or set FEDALI_DATA to a folder with {_FILE}"
        ) from error


def _checksum(windows: _Windows) -> str:
    return windows_checksum(windows.x, windows.y, windows.subject, windows.trial)


def _read_npz(path: Path) -> _Windows:
    """Read and check ``motionsense.npz``."""
    arrays = read_arrays(path)
    names = ("x", "y", "subject", "trial", "activity_names", "channel_names")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks the arrays {', '.join(missing)}; is it MotionSense as fedali saves it?"
        )
    x = arrays["x"]
    if x.dtype != np.float16 or x.ndim != 3 or x.shape[1:] != (WINDOW, len(CHANNELS)):
        raise DataError(
            f"{path}: x is {x.dtype} {list(x.shape)}, expected float16 [N, {WINDOW}, {len(CHANNELS)}]"
        )
    for name, known in (("activity_names", ACTIVITIES), ("channel_names", CHANNELS)):
        if arrays[name].tolist() != list(known):
            raise DataError(f"{path}: {name} is {arrays[name].tolist()}, expected {list(known)}")
    for name in ("y", "subject", "trial"):
        if arrays[name].shape != (len(x),) or arrays[name].dtype.kind not in "iu":
            raise DataError(f"{path}: {name} must hold one integer for each of the {len(x)} windows")
    return _Windows(x, *(arrays[name].astype(np.int64) for name in ("y", "subject", "trial")))


def _to_dataset(windows: _Windows, path: Path) -> Dataset:
    """Name clients and number recordings; windows of a recording stand in time order, which their overlap proves."""
    people, client = np.unique(windows.subject, return_inverse=True)
    key = (windows.subject * 100 + windows.y) * 100 + windows.trial
    order = np.argsort(key, kind="stable")
    first = np.concatenate([[True], np.diff(key[order]) != 0])
    index = np.arange(len(key)) - np.maximum.accumulate(np.where(first, np.arange(len(key)), 0))
    start = np.empty(len(key), np.int64)
    start[order] = index * STRIDE
    follows = np.flatnonzero(~first)
    before, after = windows.x[order[follows - 1], STRIDE:], windows.x[order[follows], : WINDOW - STRIDE]
    same = (before == after).all(axis=(1, 2))
    if not same.all():
        row = int(order[follows[int(np.argmin(same))]])
        raise DataError(
            f"{path}: window {row} does not continue the one before it; keep each recording in time order"
        )
    return Dataset(
        name="motionsense",
        x=windows.x,
        y=windows.y,
        client=client.astype(np.int64),
        client_names=tuple(f"subject-{k}" for k in people),
        class_names=ACTIVITIES,
        channel_names=CHANNELS,
        recording=key,
        start=start,
        length=WINDOW,
        interval=None if SCHEMA.rate is None else 1 / SCHEMA.rate,
        stride=STRIDE,
        licence="MIT, Copyright (c) 2018 Mohammad Malekzadeh",
        citation="Malekzadeh, Clegg, Cavallaro, Haddadi: Mobile Sensor Data Anonymization. IoTDI 2019. "
        "doi:10.1145/3302505.3310068",
    )


def _choose(
    dataset: Dataset, subjects: Sequence[int] | None, windows_per_client: int | None, seed: int
) -> Dataset:
    """Keep some people, and some windows of each."""
    if subjects is None and windows_per_client is None:
        return dataset
    people = np.array([int(name.removeprefix("subject-")) for name in dataset.client_names])
    wanted = people.tolist() if subjects is None else sorted(set(subjects))
    unknown = [person for person in wanted if person not in people]
    if unknown or not wanted:
        odd = ", ".join(map(str, unknown)) or "an empty list"
        raise SettingsError(
            f"no such MotionSense subjects: {odd}; choose from {people.min()}..{people.max()}"
        )
    if windows_per_client is not None and windows_per_client < 1:
        raise SettingsError(f"windows_per_client must be at least 1, not {windows_per_client}")
    subject = people[dataset.client]
    chosen = []
    for person in wanted:
        rows = np.flatnonzero(subject == person)
        if windows_per_client is not None and windows_per_client < len(rows):
            rng = np.random.default_rng(np.random.SeedSequence([seed, int(person)]))
            rows = rng.choice(rows, windows_per_client, replace=False)
        chosen.append(rows)
    return dataset.take(np.sort(np.concatenate(chosen)))
