"""What scenarios must have in common for their methods to be compared, and what a method may have for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedali_simulations.scenario import MethodSettings, Scenario
from fedali_simulations.study import flat
from fedali_simulations.training_settings import LINES_OWN, OPTIMIZATION

_A_METHODS_OWN = (
    "name",
    "description",
    "methods",
    "alp",
    *(f"training.{name}" for name in OPTIMIZATION),
)
_THE_MACHINES = (
    "training.engine",
    "training.precision",
    "training.keep_models",
    "evaluation.transductive",
    "evaluation.calibration",
)


def differences(one: Scenario, other: Scenario, *, same_data: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """Settings by which the methods of two scenarios cannot be compared: data, splits, model, budget, seeds; with both values.

    Where it is known that they have the ``same_data``, it does not matter how these are found and read.
    """
    mine, others = _common(one, same_data), _common(other, same_data)
    for key in mine | others:
        if mine.get(key) != others.get(key):
            yield key, mine.get(key), others.get(key)


def trains_otherwise(scenario: Scenario, line: MethodSettings, common: Scenario) -> dict[str, Any]:
    """What of its training a line of ``scenario`` has that is not ``common``."""
    training = scenario.training_for(line)
    own = {name: getattr(training, name) for name in LINES_OWN}
    return {name: value for name, value in own.items() if value != getattr(common.training, name)}


def moved(scenario: Scenario, line: MethodSettings, to: Scenario) -> MethodSettings:
    """A line of ``scenario`` that is the same in another, whose settings of ALP layers and of training may differ."""
    alp = scenario.alp_for(line).model_dump(mode="json")
    there = to.alp.model_dump(mode="json")
    return line.model_copy(
        update={
            "training": trains_otherwise(scenario, line, to),
            "alp": {key: value for key, value in alp.items() if value != there[key]},
        }
    )


def _common(scenario: Scenario, same_data: bool) -> dict[str, Any]:
    """Settings that all methods of a table share, by dotted key."""
    left_out = (*_A_METHODS_OWN, *_THE_MACHINES, *(("data",) if same_data else ()))
    settings = flat(scenario.model_dump(mode="json"))
    return {
        key: value
        for key, value in settings.items()
        if not any(key == name or key.startswith(f"{name}.") for name in left_out)
    }
