"""Sums that do not depend on the order in which updates arrive, and that survive on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from fedali.aggregation import WeightedSum
from fedali.errors import CheckpointError, DataError
from fedali.support.files import atomic
from fedali.uploads import SUMS, Upload

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_LIMBS = 3
_SHIFT = 40  # bits between two limbs; the first counts ones
_LARGEST = 2.0**62  # of the sum of all terms: the first limb holds 63 bits
_BLOCK = 1 << 15  # numbers at a time: temporaries stay in the processor's cache


class ExactSum:
    """A sum of weight * vector [n] whose bits are the same in whichever order they were added.

    Each term, rounded to float64, becomes integers in units of 1, 2^-40 and 2^-80; what is smaller is rounded away.
    Integers add up without rounding, hence in any order. 24 bytes a number.

    >>> forth, back = ExactSum(3), ExactSum(3)
    >>> terms = [([0.1, 1e9, 1e-9], 7), ([0.2, -1e9, 3e-9], 3), ([0.3, 0.1, 0.0], 1)]
    >>> for vector, weight in terms: forth.add(np.array(vector) * weight, weight)
    >>> for vector, weight in terms[::-1]: back.add(np.array(vector) * weight, weight)
    >>> (forth.total() == back.total()).all(), forth.weight
    (np.True_, 11.0)
    """

    def __init__(self, size: int) -> None:
        self.limbs: Int64 = np.zeros((_LIMBS, size), np.int64)
        self.weight = 0.0

    def add(self, term: npt.NDArray[np.float64], weight: float) -> None:
        """Add a term [n], a vector times its ``weight``; whether it fits has been asked of ``fits``."""
        for where in _blocks(term.size):
            rest = term[where].copy()
            for limb in range(_LIMBS):
                whole = np.rint(rest)
                self.limbs[limb, where] += whole.astype(np.int64)
                rest -= whole
                rest *= 2.0**_SHIFT
        self.weight += weight

    def total(self) -> Float64:
        """The sum [n], to the precision of float64."""
        total = np.empty(self.limbs.shape[1])
        for where in _blocks(total.size):
            ones, middle, low = self.limbs[:, where].copy()
            for lower, upper in ((low, middle), (middle, ones)):  # leaves half a unit of the upper at most
                carry = (lower + (1 << _SHIFT - 1)) >> _SHIFT
                lower -= carry << _SHIFT
                upper += carry
            total[where] = ones + (middle * 2.0**-_SHIFT + low * 2.0 ** (-2 * _SHIFT))
        return total


def fits(term: npt.NDArray[Any], terms: int) -> bool:
    """Whether ``terms`` terms as large as ``term`` can be added up; false for NaN too."""
    return bool(term.size == 0 or float(np.abs(term).max()) * max(terms, 1) < _LARGEST)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + _BLOCK, size)) for first in range(0, size, _BLOCK))


def check_fits(upload: Upload, terms: int) -> Upload:
    """``upload`` itself; ``DataError`` when ``terms`` such are too large to be added up."""
    for name, total in upload.sums.items():
        if total.total is not None and not fits(total.total, terms):
            raise DataError(f"{name} is not finite, or too large to be summed: did training diverge?")
    return upload


class RoundSums:
    """All that a round's clients add, and whose it is."""

    def __init__(self) -> None:
        self.sums: dict[str, ExactSum] = {}
        self.sets: dict[int, tuple[float, npt.NDArray[Any]]] = {}
        self.members: set[int] = set()

    def add(self, number: int, upload: Upload) -> None:
        """Add what client ``number`` sends, once."""
        if number in self.members:
            raise ValueError(f"client {number} is in the sum already")
        for name, sum_ in upload.sums.items():
            if sum_.total is not None:
                self.sums.setdefault(name, ExactSum(sum_.total.size)).add(sum_.total, sum_.weight)
        for one in upload.sets:
            self.sets[number] = one
        self.members.add(number)

    def save(self, path: Path) -> None:
        """Write all to ``path``, atomically and durably."""
        arrays: dict[str, npt.NDArray[Any]] = {"members": np.array(sorted(self.members), np.int64)}
        for name, part in self.sums.items():
            arrays[name], arrays[f"{name}_weight"] = part.limbs, np.array(part.weight)
        for number, (weight, vector) in self.sets.items():
            arrays[f"set_{number}"], arrays[f"set_weight_{number}"] = vector, np.array(weight)
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # a name could be "allow_pickle"

    @classmethod
    def load(cls, path: Path) -> RoundSums:
        """What ``save`` wrote; ``CheckpointError`` for a file that is damaged."""
        sums = cls()
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                sums.members = {int(number) for number in arrays["members"]}
                for name in SUMS:
                    if name in arrays:
                        sums.sums[name] = _exact(arrays[name], float(arrays[f"{name}_weight"]))
                for number in sums.members:
                    if f"set_{number}" in arrays:
                        sums.sets[number] = float(arrays[f"set_weight_{number}"]), arrays[f"set_{number}"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
        return sums

    def upload(self, population: int) -> Upload:
        """What the site sends for all its clients, of ``population``; single sets in the order of the clients' numbers."""
        sums = {name: WeightedSum(part.total(), part.weight) for name, part in self.sums.items()}
        sets = [self.sets[number] for number in sorted(self.sets)]
        return Upload(sums, sets, len(self.members), population)


def _exact(limbs: Int64, weight: float) -> ExactSum:
    if limbs.ndim != 2 or len(limbs) != _LIMBS or limbs.dtype != np.int64:
        raise ValueError(f"a sum of {limbs.dtype} {limbs.shape}")
    found = ExactSum(0)
    found.limbs, found.weight = limbs, weight
    return found


__all__ = ["ExactSum", "RoundSums", "check_fits", "fits"]
