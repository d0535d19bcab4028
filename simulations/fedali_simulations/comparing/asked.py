"""What a user wants compared, as a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedali.errors import SettingsError, did_you_mean
from fedali.methods import build_method, describe_methods
from fedali_simulations.scenario import MethodSettings, Scenario, load_scenario

SEEDS = 5  # fewer say little


def is_run(name: str) -> bool:
    """Whether ``name`` is the folder of a run, complete or not."""
    return (Path(name) / "scenario.toml").exists()


def asked_for(
    source: str | Mapping[str, Any],
    methods: str | None,
    seeds: int | None,
    changes: Sequence[str],
    against: str | None,
) -> Scenario:
    """The scenario to run: ``source`` with ``changes``, of these ``methods`` (lines of it by what they are called, or methods by name) and
    ``seeds``; at least five where nothing says how many.

    Raises ``SettingsError`` for a method that is not known, and for one to be compared ``against`` that is not among them.
    """
    scenario = load_scenario(source, changes)
    own = {line.title: line for line in scenario.methods}
    names = (
        [name.strip() for name in methods.split(",") if name.strip()] if methods is not None else list(own)
    )
    lines = [own[name] if name in own else _line(name, list(own)) for name in dict.fromkeys(names)]
    titles = [line.title for line in lines]
    if against is not None and against not in titles:
        raise SettingsError(f"no method {against!r} to compare with; {did_you_mean(against, titles)}")
    if len(lines) < 2:
        raise SettingsError(
            f"a comparison needs two methods at least, not {', '.join(titles) or 'none'}: give --methods"
        )
    said = any(change.partition("=")[0].strip() == "seeds" for change in changes)
    count = seeds or (scenario.seeds if said else max(SEEDS, scenario.seeds))
    settings: dict[str, Any] = scenario.model_dump(mode="json")
    settings |= {"methods": [line.model_dump(mode="json") for line in lines], "seeds": count}
    return load_scenario(settings)


def _line(name: str, own: Sequence[str]) -> MethodSettings:
    try:
        build_method(name)
    except SettingsError as error:
        hint = did_you_mean(name, [*own, *describe_methods()])
        if "unknown method" in str(error):
            raise SettingsError(f"--methods: unknown method {name!r}; {hint}") from None
        raise SettingsError(f"--methods: {error}") from None
    return MethodSettings(name=name)
