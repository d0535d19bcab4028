"""A scenario as commented TOML: what a run folder keeps, and a template for one's own."""

from __future__ import annotations

from typing import Any

import tomlkit
from pydantic import BaseModel

from fedali.version import __version__
from fedali_simulations.names_before import WRITTEN_BY
from fedali_simulations.scenario import Scenario


def to_toml(scenario: Scenario) -> str:
    """The resolved scenario, each setting under a comment that says what it is; ``load_scenario`` reads it back.

    >>> from fedali_simulations import load_scenario
    >>> "# Share of the clients that train in a round." in to_toml(load_scenario("digits"))
    True
    """
    document = tomlkit.document()
    document.add(tomlkit.comment("The version that wrote this: methods are called as they are there."))
    document.add(WRITTEN_BY, __version__)
    nested = {name for name in type(scenario).model_fields if isinstance(getattr(scenario, name), BaseModel)}
    _fill(document, scenario, leave_out={"methods", *nested})
    for name in type(scenario).model_fields:
        if name in nested:
            document.add(tomlkit.nl())
            document.add(name, _fill(tomlkit.table(), getattr(scenario, name)))
    methods = tomlkit.aot()
    for method in scenario.methods:
        methods.append(_fill(tomlkit.table(), method))
    document.add(tomlkit.nl())
    document.add("methods", methods)
    return tomlkit.dumps(document)


def _fill(container: Any, settings: BaseModel, leave_out: set[str] | frozenset[str] = frozenset()) -> Any:
    """Add a model's settings with their descriptions; a setting that is None stands in a comment alone."""
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        if name in leave_out:
            continue
        for line in (field.description or "").splitlines():
            container.add(tomlkit.comment(line.strip()))
        if values[name] is None:
            container.add(tomlkit.comment(f"{name} ="))
        else:
            container.add(name, _item(values[name]))
    return container


def _item(value: Any) -> Any:
    """Mappings on one line, without what is None; the rest as it is."""
    if not isinstance(value, dict):
        return value
    inline = tomlkit.inline_table()
    inline.update({key: inner for key, inner in value.items() if inner is not None})
    return inline
