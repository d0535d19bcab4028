"""Reading JSON strictly: each key is taken once, with the kind it has to have; what nobody took is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class JsonError(ValueError):
    """What is wrong, and where, in one line."""


def read_json(data: bytes, where: str) -> JsonReader:
    """A reader of the JSON object in ``data``; ``where`` is what messages call it.

    Raises ``JsonError`` for what is no JSON object in UTF-8, has a key twice, or NaN or infinite numbers.
    """
    try:
        plain = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{where} is not JSON: {error}") from None
    return JsonReader(plain, where)


class JsonReader:
    """Takes the keys of a JSON object one by one; ``done`` refuses what is left. All raise ``JsonError``."""

    def __init__(self, plain: Any, where: str) -> None:
        if not isinstance(plain, dict):
            raise JsonError(f"{where} is no JSON object")
        self._left, self.where = dict(plain), where

    def has(self, key: str) -> bool:
        """Whether a key is there that nobody took."""
        return key in self._left

    def take(self, key: str, *kinds: type) -> Any:
        """The value of ``key``, of one of ``kinds``; a bool is no number."""
        if key not in self._left:
            raise JsonError(f"{self.where} has no {key!r}")
        value = self._left.pop(key)
        if type(value) not in kinds:
            raise self.wrong(key, value)
        return value

    def number(self, key: str, least: float, most: float = 1e300) -> float:
        """A finite number from ``least`` to ``most``."""
        value = self.take(key, int, float)
        if not least <= value <= most:
            raise self.wrong(key, value)
        return float(value)

    def integer(self, key: str, least: int, most: int = 1 << 31) -> int:
        """A whole number from ``least`` to ``most``."""
        value: int = self.take(key, int)
        if not least <= value <= most:
            raise self.wrong(key, value)
        return value

    def choice(self, key: str, choices: Sequence[str]) -> Any:
        """One of ``choices``."""
        value = self.take(key, str)
        if value not in choices:
            raise self.wrong(key, value)
        return value

    def text(self, key: str, most: int = 200) -> str:
        """One line of text that is not empty; nothing that moves a terminal's cursor."""
        value: str = self.take(key, str)
        if not is_plain(value, most):
            raise self.wrong(key, value)
        return value

    def inside(self, key: str) -> JsonReader:
        """A reader of the object at ``key``."""
        return JsonReader(self.take(key, dict), f"{self.where}: {key}")

    def maybe_inside(self, key: str) -> JsonReader | None:
        """A reader of the object at ``key``; None where null is there."""
        value = self.take(key, dict, type(None))
        return None if value is None else JsonReader(value, f"{self.where}: {key}")

    def each(self, key: str) -> dict[str, JsonReader]:
        """Readers of the objects in the object at ``key``, by name."""
        found = self.take(key, dict)
        return {name: JsonReader(value, f"{self.where}: {key}: {name[:60]}") for name, value in found.items()}

    def done(self) -> None:
        """Refuse keys that were not taken."""
        if self._left:
            raise JsonError(f"{self.where} has an unknown key {min(self._left)[:60]!r}")

    def wrong(self, key: str, value: Any) -> JsonError:
        """The error for a value that makes no sense."""
        shown = repr(value)
        return JsonError(f"{self.where}: {key} cannot be {shown if len(shown) <= 80 else shown[:80] + '...'}")


def is_plain(text: Any, most: int = 200) -> bool:
    """Whether ``text`` is one line of printable text, not empty and not longer than ``most``."""
    return isinstance(text, str) and 0 < len(text) <= most and text.isprintable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
