"""Things from outside the package, by name: ``module:Name``, or an entry point."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from fedali.errors import SettingsError, did_you_mean
from fedali.support.held import held, is_held

Kind = TypeVar("Kind")


def outside(name: str, group: str, kind: type[Kind], known: list[str]) -> type[Kind]:
    """The class that ``name`` stands for: an entry point of ``group``, or ``module:Class``, looked for in the current folder too; or one
    that this process holds, see ``fedali.support.held``.

    Raises ``SettingsError`` where there is none, or it is no subclass of ``kind``.
    """
    found = outside_thing(name, group, kind.__name__.lower(), known)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise SettingsError(f"{name!r} is no subclass of {kind.__module__}.{kind.__qualname__}")
    return found


def outside_thing(name: str, group: str, what: str, known: list[str]) -> Any:
    """Whatever ``name`` stands for, see ``outside``; ``what`` it is called in messages."""
    module, colon, attribute = name.partition(":")
    if not colon:
        for point in entry_points(group=group):
            if point.name == name:
                module, _, attribute = point.value.partition(":")
                break
        else:
            raise SettingsError(f"unknown {what} {name!r}; {did_you_mean(name, known)}")
    return held(name) if is_held(name) else imported(name, module, attribute)


def imported(name: str, module: str, attribute: str) -> Any:
    """What ``module`` has by the name of ``attribute``, looked for in the current folder too; errors call it ``name``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
            raise SettingsError(f"{name!r} needs a module that is not installed: {error.name}") from error
        raise SettingsError(
            f"{name!r}: there is no module {module!r} in the current folder or among the installed ones"
        ) from None
    except AttributeError:
        raise SettingsError(f"{name!r}: module {module!r} has no {attribute!r}") from None
    except Exception as error:  # a module may fail in any way
        raise SettingsError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error


def entry_names(group: str) -> list[str]:
    """Names that installed packages give in a group of entry points."""
    return sorted(point.name for point in entry_points(group=group))
