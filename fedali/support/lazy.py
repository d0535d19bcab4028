"""Packages that name what they hold without loading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from fedali.errors import MissingExtraError

_NONE: Mapping[str, str] = MappingProxyType({})


def lazily(package: str, homes: Mapping[str, str], extras: Mapping[str, str] = _NONE) -> Callable[[str], Any]:
    """A ``__getattr__`` for the package called ``package``: a name of ``homes`` is looked up in its module, once it is asked for.

    A module is one of the package's own, or an absolute one's name where it has a dot. ``extras``: what has to be installed for a name.
    """

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(home if "." in home else f"{package}.{home}"), name)
        except ModuleNotFoundError as error:
            if name not in extras or error.name is None:
                raise
            raise MissingExtraError(error.name.partition(".")[0], extras[name]) from error

    return load
