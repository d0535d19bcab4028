"""Sums that do not depend on the order in which updates arrive, and that survive on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from fedali.aggregation import WeightedSum
from fedali.errors import CheckpointError, DataError
from fedali.methods import Contribution
from fedali.support.files import atomic

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
    >>> for vector, weight in terms: forth.add(np.array(vector), weight)
    >>> for vector, weight in terms[::-1]: back.add(np.array(vector), weight)
    >>> (forth.total() == back.total()).all(), forth.weight
    (np.True_, 11.0)
    """

    def __init__(self, size: int) -> None:
        self.limbs: Int64 = np.zeros((_LIMBS, size), np.int64)
        self.weight = 0.0

    def add(self, vector: npt.NDArray[Any], weight: float) -> None:
        """Add ``weight`` * ``vector``; whether it fits has been asked of ``fits``."""
        for where in _blocks(vector.size):
            rest = np.multiply(vector[where], weight, dtype=np.float64)
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


def fits(vector: npt.NDArray[Any], weight: float, terms: int) -> bool:
    """Whether ``terms`` terms as large as ``weight`` * ``vector`` can be added up; false for NaN too."""
    return bool(vector.size == 0 or weight * float(np.abs(vector).max()) * max(terms, 1) < _LARGEST)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + _BLOCK, size)) for first in range(0, size, _BLOCK))


class _Term(WeightedSum):
    """Remembers what a method adds, instead of adding it."""

    vector: npt.NDArray[Any] | None = None

    def add(self, vector: ArrayLike, weight: float) -> None:
        self.vector, self.weight = np.asarray(vector), float(weight)


@dataclass(frozen=True, eq=False)
class Term:
    """What one client adds to a round: vectors that its weight multiplies, or None."""

    weight: float
    theta: npt.NDArray[Any] | None = None
    prototypes: npt.NDArray[Any] | None = None
    prototype_set: npt.NDArray[Any] | None = None

    @classmethod
    def recorder(cls) -> Contribution:
        """What to give a method's ``contribute``, and then to ``of``."""
        return Contribution(_Term(), _Term())

    @classmethod
    def of(cls, recorded: Contribution, weight: float, terms: int) -> Term:
        """What was recorded; ``DataError`` when ``terms`` such terms are too large to be added up."""
        assert isinstance(recorded.theta, _Term)
        assert isinstance(recorded.prototypes, _Term)
        theta, prototypes = recorded.theta.vector, recorded.prototypes.vector
        for name, vector in (("theta", theta), ("prototypes", prototypes)):
            if vector is not None and not fits(vector, weight, terms):
                raise DataError(f"{name} is not finite, or too large to be summed: did training diverge?")
        sets = recorded.prototype_sets
        return cls(weight, theta, prototypes, sets[0] if sets else None)


class RoundSums:
    """All that a round's clients add, and whose it is."""

    def __init__(self) -> None:
        self.theta: ExactSum | None = None
        self.prototypes: ExactSum | None = None
        self.sets: dict[int, tuple[float, npt.NDArray[Any]]] = {}
        self.members: set[int] = set()

    def add(self, number: int, term: Term) -> None:
        """Add the term of client ``number``, once."""
        if number in self.members:
            raise ValueError(f"client {number} is in the sum already")
        if term.theta is not None:
            self.theta = self.theta or ExactSum(term.theta.size)
            self.theta.add(term.theta, term.weight)
        if term.prototypes is not None:
            self.prototypes = self.prototypes or ExactSum(term.prototypes.size)
            self.prototypes.add(term.prototypes, term.weight)
        if term.prototype_set is not None:
            self.sets[number] = term.weight, term.prototype_set
        self.members.add(number)

    def save(self, path: Path) -> None:
        """Write all to ``path``, atomically and durably."""
        arrays: dict[str, npt.NDArray[Any]] = {"members": np.array(sorted(self.members), np.int64)}
        for name in ("theta", "prototypes"):
            part: ExactSum | None = getattr(self, name)
            if part is not None:
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
                for name in ("theta", "prototypes"):
                    if name in arrays:
                        setattr(sums, name, _exact(arrays[name], float(arrays[f"{name}_weight"])))
                for number in sums.members:
                    if f"set_{number}" in arrays:
                        sums.sets[number] = float(arrays[f"set_weight_{number}"]), arrays[f"set_{number}"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
        return sums

    def contribution(self) -> Contribution:
        """What the site sends for all its clients; single sets in the order of the clients' numbers."""
        found = Contribution()
        for mine, sum_ in ((self.theta, found.theta), (self.prototypes, found.prototypes)):
            if mine is not None:
                sum_.total, sum_.weight = mine.total(), mine.weight
        for number in sorted(self.sets):
            weight, vector = self.sets[number]
            found.prototype_sets.append(vector)
            found.set_weights.append(weight)
        return found


def _exact(limbs: Int64, weight: float) -> ExactSum:
    if limbs.ndim != 2 or len(limbs) != _LIMBS or limbs.dtype != np.int64:
        raise ValueError(f"a sum of {limbs.dtype} {limbs.shape}")
    found = ExactSum(0)
    found.limbs, found.weight = limbs, weight
    return found


__all__ = ["ExactSum", "RoundSums", "Term", "fits"]
