"""Objects of this process by name: what settings, which are text, call what has no name elsewhere.

>>> class Mine: ...
>>> name = hold("Mine", Mine)
>>> name, held(name) is Mine, is_held("fedavg")
('python:Mine', True, False)
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from fedali.errors import SettingsError

HERE = "python:"
_held: WeakValueDictionary[str, Any] = WeakValueDictionary()


def hold(name: str, thing: Any) -> str:
    """The name that settings have for ``thing``, for as long as somebody else keeps it; a newer thing takes an older one's name."""
    _held[HERE + name] = thing
    return HERE + name


def is_held(name: str) -> bool:
    """Whether a name is that of an object, in this process or in the one that began a run."""
    return name.startswith(HERE)


def held(name: str) -> Any:
    """The object of a name; ``SettingsError`` where this process has none."""
    found = _held.get(name)
    if found is None:
        raise SettingsError(
            f"{name.removeprefix(HERE)!r} is an object of the Python process that began this run: go on there, or give it again, "
            "as in fedali_simulations.resume(folder, data=..., model=..., methods=[...])"
        )
    return found
