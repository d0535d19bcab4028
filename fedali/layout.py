"""Names, shapes and offsets of a model's parameters in one flat vector; nothing else knows offsets."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fedali.errors import SettingsError


class _Sliceable(Protocol):
    """What numpy arrays and torch tensors share, as far as a layout needs it."""

    def __getitem__(self, key: Any, /) -> Any: ...


Vector = TypeVar("Vector", bound=_Sliceable)


@dataclass(frozen=True)
class Entry:
    """One named array of a layout: where it starts in the flat vector, and its shape."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def where(self) -> slice:
        """Its place in the flat vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """The order, names and shapes of the arrays that one flat vector holds.

    >>> layout = Layout.of({"weight": (2, 3), "bias": (2,)})
    >>> layout.size
    8
    >>> layout.unflatten(np.arange(8.0))["bias"]
    array([6., 7.])
    >>> layout.select(["b*"])
    array([6, 7])
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, shapes: Mapping[str, Iterable[int]]) -> Layout:
        """Lay the arrays out one after another, in the mapping's order."""
        entries, offset = [], 0
        for name, shape in shapes.items():
            entries.append(Entry(name, tuple(int(n) for n in shape), offset))
            offset += entries[-1].size
        return cls(tuple(entries))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Layouts are keys of caches, and a transformer's has a hundred entries."""
        return hash(self.entries)

    @cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(entry.size for entry in self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(entry.name for entry in self.entries)

    def unflatten(self, flat: Vector) -> dict[str, Vector]:
        """Views of ``flat`` [..., size] by name, each [..., *shape]; numpy arrays or torch tensors."""
        return {
            e.name: flat[..., e.where].reshape((*flat.shape[:-1], *e.shape))  # type: ignore[attr-defined]
            for e in self.entries
        }

    def flatten(
        self, arrays: Mapping[str, npt.ArrayLike], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """One flat vector [size] of the named arrays.

        Raises ``SettingsError`` for a missing, unknown or misshapen array.
        """
        if set(arrays) != set(self.names):
            odd = sorted(set(arrays) ^ set(self.names))
            raise SettingsError(f"arrays do not fit the layout; missing or unknown: {', '.join(odd)}")
        flat = np.empty(self.size, dtype)
        for entry in self.entries:
            value = np.asarray(arrays[entry.name])
            if value.shape != entry.shape:
                raise SettingsError(f"{entry.name} has shape {value.shape}, the layout says {entry.shape}")
            flat[entry.where] = value.reshape(-1)
        return flat

    def select(self, patterns: Iterable[str]) -> npt.NDArray[np.int64]:
        """Sorted indices into the flat vector of every array whose name matches one of the glob ``patterns``.

        Raises ``SettingsError`` for a pattern that matches nothing, so that a typing error is not a silent no-op.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            found = fnmatch.filter(self.names, pattern)
            if not found:
                raise SettingsError(
                    f"no parameter matches {pattern!r}; names are like {', '.join(self.names[:4])}"
                )
            chosen.update(found)
        parts = [np.arange(e.offset, e.offset + e.size) for e in self.entries if e.name in chosen]
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    def to_json(self) -> str:
        """The layout as JSON text, read back by ``from_json``."""
        return json.dumps([[e.name, list(e.shape)] for e in self.entries])

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The layout that ``to_json`` wrote; ``SettingsError`` when the text is not one."""
        try:
            pairs = json.loads(text)
            shapes = {str(name): [int(n) for n in shape] for name, shape in pairs}
            if len(shapes) != len(pairs) or any(n < 0 for shape in shapes.values() for n in shape):
                raise ValueError("repeated name or negative size")
        except (ValueError, TypeError) as error:
            raise SettingsError(f"not a layout: {error}") from error
        return cls.of(shapes)
