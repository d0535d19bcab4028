"""Windows that a device saw, with their labels where it knows them: a bounded store on disk, balanced over the classes.

One file of fixed-size records. A new record is written to a free place before the one that has to go is freed; each
carries a checksum, so that one which a crash tore is dropped when the store is opened.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedali.errors import CheckpointError, SettingsError
from fedali.support.files import atomic, flush_folder, reporting

Array = npt.NDArray[Any]
StoredDtype = Literal["float32", "float16"]

UNLABELLED = -1
CAPACITY = 1000
SYNC_EVERY = 5.0  # seconds: the most that a power cut takes of what was observed

_HEADER = 4096
_MAGIC = b"fedali observations 1\n"


class Observations:
    """The store at ``path``; opened as it was left, or made.

    When it is full, the oldest window of the largest class goes; those without a label are a class of their own.

    Args:
        path: of the file.
        shape: of a window.
        capacity: windows it holds; a store of another capacity is made anew with what fits. None is what it has, and
            ``CAPACITY`` for a new one.
        dtype: of the windows on disk; float16 takes half the space and keeps three digits. None is what it has, and
            float32 for a new one.

    Raises ``FedaliError`` when the file cannot be made or read, or holds windows of another shape.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        capacity: int | None = None,
        dtype: StoredDtype | None = None,
    ) -> None:
        if capacity is not None and capacity < 2:
            raise SettingsError(f"a store of observations has a capacity of at least 2, not {capacity}")
        found = _read(path)
        there: dict[str, Any] = {"capacity": CAPACITY, "dtype": "float32"} if found is None else found[0]
        facts: dict[str, Any] = {
            "shape": list(shape),
            "dtype": dtype or there["dtype"],
            "capacity": capacity or there["capacity"],
        }
        self.path, self.capacity = path, int(facts["capacity"])
        self._record = _record(facts)
        if found is None:
            self._create(facts, np.zeros(0, self._record))
        elif found[0] != facts:
            if found[0]["shape"] != facts["shape"]:
                raise CheckpointError(
                    f"{path} holds windows of shape {found[0]['shape']}, not {list(shape)}; move it away"
                )
            self._create(facts, self._converted(found[1]))
        with reporting(path, "open"):
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._synced = time.monotonic()
        self._index()

    def __len__(self) -> int:
        """Windows in the store."""
        return sum(map(len, self._places.values()))

    def counts(self) -> dict[int, int]:
        """Windows of each class that has any; ``UNLABELLED`` is one."""
        return {label: len(places) for label, places in sorted(self._places.items()) if places}

    def add(self, window: Array, label: int = UNLABELLED) -> None:
        """Keep a window [*shape]. A killed process loses nothing of it; it is on the disk ``SYNC_EVERY`` seconds later
        at the latest, if others follow, or after ``close``.
        """
        place, sequence = self._free.pop(), self._next
        record = np.zeros((), self._record)
        record["sequence"], record["label"], record["window"] = sequence, label, window
        record["crc"] = _crc(record)
        with reporting(self.path):
            os.pwrite(self._handle, record.tobytes(), self._offset(place))
        self._next += 1
        self._places.setdefault(label, {})[sequence] = place
        if len(self) > self.capacity:
            self._evict()
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def labelled(self) -> tuple[Array, npt.NDArray[np.int64]]:
        """Windows [n, *shape] and labels [n], in the order they came."""
        return self._take([label for label in self._places if label != UNLABELLED])

    def unlabelled(self) -> Array:
        """Windows [n, *shape] without a label, in the order they came."""
        return self._take([UNLABELLED])[0]

    def sync(self) -> None:
        """Return when everything is on the disk."""
        with reporting(self.path):
            os.fsync(self._handle)
        self._synced = time.monotonic()

    def close(self) -> None:
        """``sync`` and leave the file."""
        if self._handle >= 0:
            try:
                self.sync()
            finally:
                os.close(self._handle)
                self._handle = -1

    def _offset(self, place: int) -> int:
        return _HEADER + place * self._record.itemsize

    def _evict(self) -> None:
        """Free the place of the oldest of the largest class; among classes of one size, of the one whose oldest is oldest."""
        label = max(
            (label for label in self._places if self._places[label]),
            key=lambda label: (len(self._places[label]), -next(iter(self._places[label]))),
        )
        sequence = next(iter(self._places[label]))
        place = self._places[label].pop(sequence)
        with reporting(self.path):
            os.pwrite(self._handle, bytes(8), self._offset(place))
        self._free.append(place)

    def _take(self, labels: Sequence[int]) -> tuple[Array, npt.NDArray[np.int64]]:
        chosen = sorted(
            (sequence, place, label)
            for label in labels
            for sequence, place in self._places.get(label, {}).items()
        )
        records = np.memmap(self.path, self._record, "r", _HEADER, (self.capacity + 1,))
        windows = records["window"][[place for _, place, _ in chosen]]
        return np.asarray(windows), np.array([label for _, _, label in chosen], np.int64)

    def _index(self) -> None:
        """Find what is in the file; torn records are free places."""
        records = np.memmap(self.path, self._record, "r", _HEADER, (self.capacity + 1,))
        self._places: dict[int, dict[int, int]] = {}  # by label, in the order of sequence
        self._free: list[int] = []
        self._next = 1
        for place in np.argsort(records["sequence"], kind="stable").tolist():
            record = records[place]
            sequence, label = int(record["sequence"]), int(record["label"])
            if sequence == 0 or int(record["crc"]) != _crc(record):
                self._free.append(place)
                continue
            self._places.setdefault(label, {})[sequence] = place
            self._next = sequence + 1
        while len(self) > self.capacity:
            self._evict()

    def _create(self, facts: dict[str, Any], records: Array) -> None:
        header = _MAGIC + json.dumps(facts, sort_keys=True).encode() + b"\n"
        if len(header) > _HEADER:
            raise SettingsError(f"windows of shape {facts['shape']} have too many dimensions")
        size = self._offset(self.capacity + 1)
        with atomic(self.path) as temporary, temporary.open("rb+") as stream:
            allocate: Any = getattr(os, "posix_fallocate", None)
            if allocate is not None:
                allocate(stream.fileno(), 0, size)
            stream.truncate(size)
            stream.write(header.ljust(_HEADER, b"\0"))
            stream.write(records.tobytes())
        flush_folder(self.path.parent)

    def _converted(self, old: Array) -> Array:
        """What fits of the records of another store, the youngest of each class."""
        old = old[np.argsort(old["sequence"])]
        labels = old["label"].tolist()
        while len(labels) > self.capacity:
            largest = max(set(labels), key=lambda label: (labels.count(label), -labels.index(label)))
            gone = labels.index(largest)
            labels.pop(gone)
            old = np.delete(old, gone)
        records = np.zeros(len(old), self._record)
        for name in ("sequence", "label", "window"):
            records[name] = old[name]
        for record in records:
            record["crc"] = _crc(record)
        return records


def _read(path: Path) -> tuple[dict[str, Any], Array] | None:
    """What the file at ``path`` says of itself, and its whole records."""
    if not path.exists():
        return None
    with reporting(path, "read"), path.open("rb") as stream:
        header = stream.read(_HEADER)
    try:
        if not header.startswith(_MAGIC):
            raise ValueError
        facts: dict[str, Any] = json.loads(header[len(_MAGIC) :].partition(b"\n")[0])
        records = np.memmap(path, _record(facts), "r", _HEADER, (facts["capacity"] + 1,))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged; move it away: observations start anew") from error
    whole = [bool(one["sequence"]) and int(one["crc"]) == _crc(one) for one in records]
    return facts, np.asarray(records[whole])


def _record(facts: dict[str, Any]) -> np.dtype[Any]:
    window = ("window", np.dtype(facts["dtype"]), tuple(facts["shape"]))
    return np.dtype([("sequence", "<u8"), ("label", "<i4"), ("crc", "<u4"), window])


def _crc(record: Any) -> int:
    known = zlib.crc32(record["sequence"].tobytes() + record["label"].tobytes())
    return zlib.crc32(np.ascontiguousarray(record["window"]).tobytes(), known)
