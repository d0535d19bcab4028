"""Methods that are objects, as lines of a scenario's table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedali.errors import SettingsError
from fedali.methods import METHODS, Method
from fedali.support.held import hold
from fedali_simulations.objects.reach import name_elsewhere
from fedali_simulations.scenario import MethodSettings

_PLAIN = (bool, int, float, str)


def lines_of(methods: Any, keep: list[object]) -> list[dict[str, Any]]:
    """Lines of the table for one method or several: names, ``Method`` objects, classes of them, or lines as they are.

    Classes that have no name elsewhere are held under one, and put into ``keep``: who forgets that, forgets them.
    Raises ``SettingsError`` for anything else.
    """
    several = isinstance(methods, Sequence) and not isinstance(methods, str)
    lines = [_line(one, keep) for one in (methods if several else [methods])]
    titles = Counter(line.get("label") or line["name"] for line in lines)
    for line in lines:
        title = line.get("label") or line["name"]
        if titles[title] > 1 and line.get("options"):
            line["label"] = " ".join([title, *(f"{key}={value}" for key, value in line["options"].items())])
    return lines


def _line(method: Any, keep: list[object]) -> dict[str, Any]:
    if isinstance(method, str):
        return {"name": method}
    if isinstance(method, MethodSettings):
        return method.model_dump()
    if isinstance(method, Mapping):
        if "name" not in method:
            raise SettingsError(f"method {dict(method)!r} has no name")
        own = {key: value for key, value in method.items() if key != "name"}
        return {**_line(method["name"], keep), **own}
    if isinstance(method, type) and issubclass(method, Method):
        return _named(method, keep)
    if isinstance(method, Method):
        return _made(method, keep)
    raise SettingsError(
        f"method {method!r} is {type(method).__name__}; give a name, a fedali.Method, or a class of it"
    )


def _named(kind: type[Method], keep: list[object]) -> dict[str, Any]:
    if METHODS.get(kind.name) is kind:
        return {"name": kind.name}
    own = kind.__dict__.get("name") or kind.__name__
    elsewhere = name_elsewhere(kind)
    if elsewhere is not None:
        return {"name": elsewhere, "label": own}
    keep.append(kind)
    return {"name": hold(kind.__name__, kind), "label": own}


def _made(method: Method, keep: list[object]) -> dict[str, Any]:
    """A line that makes the method again: its class, and those of its options that are not the class's."""
    line, options = _named(type(method), keep), {}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if value == _usual(field):
            continue
        if field.name == "answer":
            line = {key: f"{name}+{value}" for key, name in line.items()}
            continue
        if not _is_plain(value):
            raise SettingsError(
                f"option {field.name} of method {line['name']} is {type(value).__name__}; options are numbers, text, and lists of them"
            )
        options[field.name] = list(value) if isinstance(value, tuple) else value
    return {**line, "options": options} if options else line


def _usual(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return isinstance(value, _PLAIN)
