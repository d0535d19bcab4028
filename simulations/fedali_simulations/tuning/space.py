"""What is searched: the learning rate, and a method's own numbers, in the same way for each method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedali.errors import SettingsError, did_you_mean
from fedali.methods import build_method
from fedali_simulations.scenario import MethodSettings, Scenario, load_scenario

_DECADE = 10.0
_DIGITS = 3  # significant ones of what is tried: what is found is written as it was run
RATE = "training.learning_rate"


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``: ``whole`` numbers; else evenly in the logarithm where ``log``."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}{' (whole)' if self.whole else ''}"
        )


Space = Mapping[str, Range]


def space_of(scenario: Scenario, line: MethodSettings, given: Sequence[str] = ()) -> dict[str, Range]:
    """What is searched for one line of the table: a tenth of a setting's value to ten times it, evenly in the logarithm.

    That goes for the learning rate and for each option of the method that is a number with decimals and above 0; where the method
    refuses ten times the value, up to 1. Whole numbers and words are left as they are: they change the budget, or which method it is.

    Args:
        scenario: the learning rate is its.
        line: the method, with its options.
        given: ``KEY=LOW:HIGH`` over that, or besides: ``learning_rate=1e-4:1e-2``, ``options.mu=0.01:1``, ``alp.scale=1.0:16.0``.
            Whole numbers where both ends are; evenly in the logarithm where decimals begin above 0.
    """
    rate = scenario.training_for(line).learning_rate
    space = {RATE: Range(rounded(rate / _DECADE), rounded(rate * _DECADE))}
    method = line.build()
    for option in dataclasses.fields(method):
        value = getattr(method, option.name)
        if isinstance(value, float) and value > 0:
            found = _allowed(line, option.name, value)
            if found is not None:
                space[f"options.{option.name}"] = found
    for text in given:
        key, range_ = _read(text)
        for end in (range_.low, range_.high):
            with_range(scenario, line, {key: int(end) if range_.whole else end})
        space[key] = range_
    return space


def _allowed(line: MethodSettings, option: str, value: float) -> Range | None:
    """Around an option's value, as far as the method takes it; None where that is nowhere."""
    low = rounded(value / _DECADE)
    for high in (rounded(value * _DECADE), 1.0):
        try:
            for end in (low, high):
                build_method(line.name, {**line.options, option: end})
        except SettingsError:
            continue
        return Range(low, high) if high > low else None
    return None


def _read(text: str) -> tuple[str, Range]:
    key, equals, ends = text.partition("=")
    key = RATE if key.strip() == "learning_rate" else key.strip()
    low, colon, high = (part.strip() for part in ends.partition(":"))
    try:
        if not (equals and colon):
            raise ValueError
        whole = all(part.lstrip("-").isdigit() for part in (low, high))
        least, most = float(low), float(high)
        if not least < most:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f"--search takes KEY=LOW:HIGH, not {text!r}; for example options.mu=0.01:1.0"
        ) from None
    known = ("training", "options", "alp")
    if key.partition(".")[0] not in known or "." not in key:
        raise SettingsError(f"--search {text}: {did_you_mean(key, [f'{name}.NAME' for name in known])}")
    return key, Range(least, most, log=least > 0 and not whole, whole=whole)


def with_range(scenario: Scenario, line: MethodSettings, found: Mapping[str, Any]) -> Scenario:
    """The scenario with this line alone, with ``found`` settings in it by dotted key; ``SettingsError`` where one is refused."""
    settings = line.model_dump(mode="json")
    for key, value in found.items():
        room, _, name = key.partition(".")
        settings[room] = {**settings[room], name: value}
    try:
        made = load_scenario({**scenario.model_dump(mode="json"), "methods": [settings]})
        made.alp_for(made.methods[0])
    except SettingsError as error:
        tried = ", ".join(f"{key} = {value:g}" for key, value in found.items())
        raise SettingsError(
            f"{line.title} cannot have {tried}: {str(error).removeprefix('scenario: ')}"
        ) from None
    return made


def rounded(value: float) -> float:
    """With as many digits as are worth writing down.

    >>> rounded(0.00123456)
    0.00123
    """
    return float(f"{value:.{_DIGITS}g}")
