"""What in data is likely a slip of whoever recorded or copied them: it is said in a note, and never mended."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SHOWN = 3
_FEW, _SHARE = 3, 10  # samples that are the same by chance: so many, and one in so many
_STEPS = 64  # of single precision: what changes by less is mostly rounding
_CHUNK = 256


def look_alikes(what: str, names: Iterable[str]) -> list[str]:
    """A note on names that differ in case, spaces, zeros or unicode form alone; ``what`` they are names of, in the plural.

    >>> look_alikes("clients", ["ann", "Ann ", "bob"])
    ["clients 'ann' and 'Ann ' differ in case, spaces, zeros or unicode form alone, and are taken as different ones"]
    >>> look_alikes("classes", ["7", "007", "70"]), look_alikes("classes", ["sit", "site"])
    (["classes '7' and '007' differ in case, spaces, zeros or unicode form alone, and are taken as different ones"], [])
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_bare(name), []).append(name)
    some = [" and ".join(map(ascii, group[:_SHOWN])) for group in alike.values() if len(group) > 1]
    if not some:
        return []
    more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
    return [
        f"{what} {', '.join(some[:_SHOWN])}{more} differ in case, spaces, zeros or unicode form alone, and are taken as different ones"
    ]


def _bare(name: str) -> str:
    """A name without what a reader overlooks."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = " ".join(
        "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace()).split()
    )
    if not any(c.isdigit() for c in text) or "_" in text:
        return text
    if text.isdecimal():
        return str(int(text)) if len(text) < 1000 else text
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(number) if math.isfinite(number) else text


def same_samples(
    x: npt.NDArray[Any],
    client: npt.NDArray[np.int64],
    names: Sequence[str],
    times: npt.NDArray[np.float64] | None = None,
    file: npt.NDArray[np.int64] | None = None,
) -> list[str]:
    """A note on samples ``x`` [n, ...] that are there twice, bit for bit and at the same ``times`` [n], as of a file that was copied.

    ``client`` [n] are places in ``names``; what clients have in common counts between files alone, whose number is ``file`` [n]. Samples
    that hold one value alone are nothing to go by, nor are a few.

    >>> x, client = np.random.default_rng(0).normal(size=(9, 4)), np.repeat([0, 1], 9)
    >>> same_samples(np.concatenate([x, x]), client, ["ann", "copy"], file=client)
    ["9 of 18 samples are there twice, bit for bit, as of 'ann' and of 'copy': was something copied?"]
    """
    keys = _keys(x)
    if times is not None:
        keys = np.where(
            keys != 0,
            keys * np.uint64(0x9E3779B97F4A7C15) + np.ascontiguousarray(times).view(np.uint64),
            keys,
        )
    rows = np.flatnonzero(keys != 0)
    _, first, place = np.unique(keys[rows], return_index=True, return_inverse=True)
    before = rows[first][place.ravel()]
    again = (before != rows) & (
        (client[before] == client[rows]) | (False if file is None else file[before] != file[rows])
    )
    if again.sum() < max(_FEW, len(x) / _SHARE):
        return []
    one, other = client[before[again]], client[rows[again]]
    whose = ""
    if (one != other).any():
        at = int(np.argmax(one != other))
        whose = f", as of {names[int(one[at])]!r} and of {names[int(other[at])]!r}"
    return [
        f"{int(again.sum())} of {len(x)} samples are there twice, bit for bit{whose}: was something copied?"
    ]


def _keys(x: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A number for each of some samples [n], the same for the same bits; 0 for one value alone."""
    keys = np.zeros(len(x), np.uint64)
    size = x[0].size * x.dtype.itemsize if len(x) else 0
    unit = np.dtype(f"u{4 if size % 4 == 0 else 1}")
    weights = np.random.default_rng(0).integers(1, 2**64, size // unit.itemsize, np.uint64) | np.uint64(1)
    for begin in range(0, len(x), _CHUNK):
        part = np.ascontiguousarray(x[begin : begin + _CHUNK]).reshape(len(x[begin : begin + _CHUNK]), -1)
        varies = part.min(axis=1) != part.max(axis=1)
        keys[begin : begin + _CHUNK] = (part.view(unit).astype(np.uint64) * weights).sum(axis=1) * varies
    return keys


def coarse(names: Sequence[str], values: npt.NDArray[Any]) -> list[str]:
    """A note on channels of ``values`` [n, c] that change by so little of their size that single precision loses it.

    >>> coarse(["lat", "x"], np.array([[48.137101, 0.1], [48.137109, 0.2]]))
    ["channel 'lat' changes by 8e-06 at 48.1371, which single precision loses: subtract what is constant in it"]
    """
    notes = []
    for name, column in zip(names, values.T, strict=True):
        known = column[np.isfinite(column)]
        if not known.size or known.dtype.itemsize < 4 or known.dtype == np.float32:
            continue
        low, high = known.min(), known.max()
        change = float(high) - float(low) if known.dtype.kind == "f" else float(int(high) - int(low))
        size = max(abs(float(low)), abs(float(high)))
        if 0 < change < _STEPS * float(np.spacing(np.float32(size))):
            notes.append(
                f"channel {name!r} changes by {change:.3g} at {size:.6g}, which single precision loses: subtract what is constant in it"
            )
    return notes
