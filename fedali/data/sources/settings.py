"""Settings of a scenario's ``data`` in other places: in a bundle, and in ``--set`` of a device or a site."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedali.data.sources.reading import ROLES, Reading
from fedali.errors import SettingsError, did_you_mean

_MOST = 1000  # values of a list, characters of a text


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings ``data.NAME=VALUE`` by their names without ``data.``; a later one takes the place of an earlier.

    A value is as in TOML, or plain words, or several with commas between; nothing takes a setting away. ``window`` and ``stride`` are
    known too. Raises ``SettingsError`` for a name or a value that is none.

    >>> parse_settings(["data.separator=;", "data.columns.client = user", "data.missing=-999, NA", "data.gap=5"])
    {'separator': ';', 'columns.client': 'user', 'missing': ('-999', 'NA'), 'gap': 5.0}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        key = name.strip().removeprefix("data.")
        if not equals or not name.strip().startswith("data."):
            raise SettingsError(
                f'--set takes data.NAME=VALUE, not {word!r}; for example --set data.separator=";"'
            )
        found[key] = _checked(key, _value(_kind_of(key), text.strip() or text), f"--set {word}")
    return found


def with_settings(reading: Reading, settings: Mapping[str, Any], where: str) -> Reading:
    """``reading`` with ``settings`` by the names of a scenario, ``columns.client`` and the like; ``window`` and ``stride`` are none of it.

    Raises ``SettingsError`` that says ``where`` for what makes no sense.

    >>> settings = {"gap": 5.0, "columns.time": "t"}
    >>> with_settings(Reading(), settings, "a test").columns.time
    't'
    """
    whole = {name: _checked(name, value, where) for name, value in settings.items()}
    columns = {name.removeprefix("columns."): whole.pop(name) for name in list(whole) if "." in name}
    for name in ("window", "stride"):
        whole.pop(name, None)
    try:
        return replace(reading, columns=replace(reading.columns, **columns), **whole)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def plain_settings(reading: Reading) -> dict[str, Any]:
    """What differs from the defaults, by the names of a scenario, as JSON can hold it; ``with_settings`` takes it back.

    >>> from fedali.data.sources.reading import Columns
    >>> plain_settings(Reading(columns=Columns(client="user"), missing=("-999",)))
    {'columns.client': 'user', 'missing': ['-999']}
    """
    found = {f"columns.{name}": getattr(reading.columns, name) for name in (*ROLES, "channels", "target")}
    found |= {name: getattr(reading, name) for name in _KINDS if "." not in name and hasattr(reading, name)}
    default = Reading()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value != (None if "." in name else getattr(default, name))
    }


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("text")
    return value or None


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(value) > _MOST:
        raise ValueError("a value, or a list of some")
    if any(isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in value):
        raise ValueError("a list of texts and numbers")
    return tuple(map(str, value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


_KINDS: dict[str, Callable[[Any], Any]] = {
    **{f"columns.{role}": _text for role in ROLES},
    "columns.channels": _texts,
    "columns.target": _texts,
    "gap": _number,
    "unlabelled": _texts,
    "missing": _texts,
    "header": _texts,
    "quote": _text,
    "escape": _text,
    "separator": _text,
    "decimal": _text,
    "encoding": _text,
    "time_format": _text,
    "layout": _text,
    "window": _count,
    "stride": _count,
}


def _kind_of(name: str) -> Callable[[Any], Any]:
    if name not in _KINDS:
        hint = f"for example data.{name}.client=user" if name == "columns" else did_you_mean(name, _KINDS)
        raise SettingsError(f"unknown setting data.{name}; {hint}")
    return _KINDS[name]


def _checked(name: str, value: Any, where: str) -> Any:
    kind = _kind_of(name)
    if any(
        isinstance(one, str) and len(one) > _MOST
        for one in (value, *(value if isinstance(value, (list, tuple)) else ()))
    ):
        raise SettingsError(f"{where}: data.{name} is too long")
    try:
        return kind(value)
    except ValueError as error:
        raise SettingsError(f"{where}: data.{name} is {value!r}; it has to be {error}") from None


def _value(kind: Callable[[Any], Any], text: str) -> Any:
    """What a value's text says: text that needs no quotes stays as it is."""
    found: Any = text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if kind is _texts and "," in text and not text.startswith("["):
            found = [_value(_text, part.strip()) for part in text.split(",")]
    if kind is _text and not isinstance(found, str):
        return text
    if kind is _texts and isinstance(found, (int, float)) and not isinstance(found, bool):
        return [text]
    return found
