"""What a user wants compared, as a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedali.errors import SettingsError, did_you_mean
from fedali.methods import build_method, describe_methods
from fedali_simulations.baselines import BASELINES
from fedali_simulations.comparing.same import differences, moved
from fedali_simulations.scenario import MethodSettings, Scenario, load_scenario

SEEDS = 5  # fewer say little


def is_run(name: str) -> bool:
    """Whether ``name`` is the folder of a run, complete or not."""
    return (Path(name) / "scenario.toml").exists()


def asked_for(
    sources: Sequence[str | Mapping[str, Any]],
    methods: str | None,
    seeds: int | None,
    changes: Sequence[str],
    against: str | None,
) -> Scenario:
    """The scenario to run: that of ``sources`` with ``changes``, of these ``methods`` (lines of it by what they are called, or methods by name)
    and ``seeds``; at least five where nothing says how many.

    Several sources give their lines, as `fedali tune` finds them; what all methods of a table share has to be the same in each.
    Raises ``SettingsError`` for a method that is not known, and for one to be compared ``against`` that is not among them.
    """
    scenario = _together(sources, changes)
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


def one_line(scenario: Scenario, name: str) -> Scenario:
    """The scenario with one line, named as in ``asked_for``."""
    own = {line.title: line for line in scenario.methods}
    line = own[name] if name in own else _line(name, list(own))
    return load_scenario({**scenario.model_dump(mode="json"), "methods": [line.model_dump(mode="json")]})


def _together(sources: Sequence[str | Mapping[str, Any]], changes: Sequence[str]) -> Scenario:
    """One scenario with the lines of all."""
    scenarios = [load_scenario(source, changes) for source in sources]
    first = scenarios[0]
    lines = list(first.methods)
    for source, other in zip(sources[1:], scenarios[1:], strict=True):
        for key, one, another in differences(first, other):
            if key == "seeds":  # the most of them
                continue
            raise SettingsError(
                f"{sources[0]} and {source} cannot be compared: {key} is {one!r} there and {another!r} here"
            )
        lines += [moved(other, line, first) for line in other.methods]
    settings = {**first.model_dump(mode="json"), "seeds": max(each.seeds for each in scenarios)}
    return load_scenario({**settings, "methods": [line.model_dump(mode="json") for line in lines]})


def _line(name: str, own: Sequence[str]) -> MethodSettings:
    if name in BASELINES:
        return MethodSettings(name=name)
    try:
        build_method(name)
    except SettingsError as error:
        hint = did_you_mean(name, [*own, *describe_methods(), *BASELINES])
        if "unknown method" in str(error):
            raise SettingsError(f"unknown method {name!r}; {hint}") from None
        raise SettingsError(str(error)) from None
    return MethodSettings(name=name)
