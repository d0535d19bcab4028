"""What other processes can reach by name, and what they cannot."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from fedali.support.held import is_held
from fedali_simulations.scenario import Scenario


def name_elsewhere(thing: Any) -> str | None:
    """``module:Name`` of a class or a function that other processes can import; None of what is in a notebook, a script, a function.

    >>> from fedali.methods import FedAvg
    >>> name_elsewhere(FedAvg), name_elsewhere(lambda: 0)
    ('fedali.methods.fedavg:FedAvg', None)
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not module or module == "__main__" or not name.isidentifier():
        return None
    if getattr(sys.modules.get(module), name, None) is not thing:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return f"{module}:{name}" if spec is not None and spec.has_location else None


def in_file(name: str) -> str:
    """``module:Name`` by the module's file, where that stands by itself, so that it is found from anywhere."""
    module, _, thing = name.partition(":")
    file = getattr(sys.modules[module], "__file__", None)
    return f"{file}:{thing}" if file and file.endswith(".py") and "." not in module else name


def held_here(scenario: Scenario) -> list[str]:
    """What of a scenario is an object of this process alone."""
    found = {"data": scenario.data.source or "", "model": scenario.model.name}
    found |= {f"method {line.title}": line.name for line in scenario.methods}
    return [what for what, name in found.items() if is_held(name)]
