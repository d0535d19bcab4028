"""How a comparison's numbers are written, for every kind of table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedali_simulations.comparing.comparison import Comparison
from fedali_simulations.comparing.measures import FORGETTING, GATE, TARGET, Measure
from fedali_simulations.comparing.statistics import ALPHA

NONE = "–"
_SCALES = {"share": 100.0, "bytes": 1e-3, "megabytes": 1e-6, "seconds": 1.0, "rounds": 1.0, "index": 1.0}
_UNITS = {"share": "%", "bytes": "kB", "megabytes": "MB", "seconds": "s", "rounds": "", "index": ""}


def unit_of(row: Mapping[str, Any]) -> str:
    """What a measure's numbers are in, as they are shown."""
    return _UNITS[row["unit"]]


def title_of(comparison: Comparison, name: str) -> str:
    """The heading of a block of the task's main score."""
    main = comparison.scenario.task.build().main
    if main.name == "accuracy":
        return f"{name}, %"
    return f"{name}, {main.title}{', %' if main.share else ''}"


def number(row: Mapping[str, Any], name: str, *, sign: bool = False) -> str:
    """One number of a row in its unit."""
    value = row[name] * _SCALES[row["unit"]]
    if math.isnan(value):
        return NONE
    text = f"{value:.{_decimals(row)}f}"
    if sign and not text.startswith("-"):
        text = f"+{text}"
    return text.replace("-0.0", "0.0").replace("+0.0", "0.0") if float(text) == 0 else text


def with_interval(row: Mapping[str, Any], name: str, low: str, high: str, *, sign: bool = False) -> str:
    """A number, and half of its interval: ``89.7 ± 2.2``; the number alone where there is no interval, or it has no width."""
    half = (row[high] - row[low]) / 2 * _SCALES[row["unit"]]
    text = number(row, name, sign=sign)
    return text if math.isnan(half) or half == 0 or text == NONE else f"{text} ± {half:.{_decimals(row)}f}"


def mean(row: Mapping[str, Any]) -> str:
    """A method's mean with its interval over seeds."""
    return with_interval(row, "mean", "low", "high")


def other(row: Mapping[str, Any], comparison: Comparison, *, interval: bool = False) -> str:
    """A number that stands beside an accuracy, with its star; of what was to be reached also by how many seeds, where not by all."""
    text = (mean(row) if interval else number(row, "mean")) + mark(row)
    if not row["about"].startswith(f"{TARGET} ") or row["seeds"] == len(comparison.seeds):
        return text
    if row["unit"] != "rounds" and not row["seeds"]:
        return NONE
    return f"{text} ({row['seeds']}/{len(comparison.seeds)})" if row["seeds"] else "not reached"


def difference(row: Mapping[str, Any]) -> str:
    """A method's difference with its interval over seeds, as a signed number."""
    return with_interval(row, "difference", "difference_low", "difference_high", sign=True)


def rank(row: Mapping[str, Any]) -> str:
    """A mean place."""
    return NONE if math.isnan(row["rank"]) else f"{row['rank']:.1f}"


def p_value(value: float) -> str:
    """Short, and never 0.

    >>> p_value(0.0312), p_value(0.0001), p_value(1.0)
    ('.031', '<.001', '1')
    """
    if math.isnan(value):
        return NONE
    if value >= 0.9995:
        return "1"
    return "<.001" if value < 0.001 else f"{value:.3f}"[1:]


def gains(row: Mapping[str, Any]) -> str:
    """How many clients gain, of all that are paired."""
    return f"{row['gain']}/{row['clients']}" if row["clients"] else NONE


def mark(row: Mapping[str, Any]) -> str:
    """A star where a method differs by every test there is."""
    return "*" if row["differs"] else ""


def explained(comparison: Comparison) -> list[str]:
    """What the numbers mean and what they are of, in sentences."""
    p, ratio = f"{ALPHA:g}"[1:], comparison.ratio
    lines = [
        "±: half of a 95 % interval over seeds (t). rank: mean place, 1 is best. gain: clients that are better off than with "
        f"{comparison.against}.",
        "p clients: Wilcoxon's signed rank, a client's mean over seeds being one pair. p seeds: t over seeds, corrected for splits that "
        f"share samples (Nadeau-Bengio; {ratio.test:.0f} test by {ratio.train:.0f} training samples, {ratio.value:.2f}). Both after Holm; "
        f"*: below {p} by every test there is.",
        "cost: of a client in a round; bytes of float32, processor seconds of training and evaluation.",
    ]
    if any(measure.about == FORGETTING for measure in comparison.measures):
        lines.append(
            "forgetting: a client's best accuracy of all rounds less its last, on own data and on all; 0 where the last is the best."
        )
    reached = [m for m in comparison.measures if m.about.startswith(f"{TARGET} ") and m.unit == "rounds"]
    lines += [_reaching(measure, comparison) for measure in reached]
    if any(measure.about == GATE for measure in comparison.measures):
        lines.append(
            "gate, on everyone's data: AUC of its weight for own samples against others'; agreement: samples that it sends to whose model knows "
            "them; own: own samples among those; perfect: accuracy of a gate that knows whose each is; lost: by not knowing."
        )
    if len(comparison.seeds) == 1:
        lines.append("One seed: no interval, no t over seeds, and so no star.")
    return [*lines, *(f"{note}." for note in comparison.notes)]


def _reaching(measure: Measure, comparison: Comparison) -> str:
    """What it means to reach a target, and on which data."""
    _, name, value = measure.about.split(" ")
    every = (
        1
        if name in ("validation", "personalisation")
        else comparison.scenario.evaluation.generalisation_every
    )
    data = "validation" if name == "validation" else comparison.scenario.evaluation.on
    return (
        f"{measure.about}: the first round whose mean {name} over clients, on {data} data, is {100 * float(value):g} % or more"
        + (f" (measured every {every} rounds and in the last)" if every > 1 else "")
        + "; bytes and processor seconds of all clients until then, rounds being alike. (k/n): reached by k of n seeds, the mean is theirs."
    )


def heading(comparison: Comparison) -> str:
    """What is compared, in a line."""
    seeds, training = comparison.seeds, comparison.scenario.training
    return (
        f"{comparison.scenario.name}: {len(comparison.methods)} methods compared with {comparison.against}; {comparison.clients} clients, "
        f"{training.rounds} rounds of {training.epochs} epochs, seed{'s' if len(seeds) > 1 else ''} {_seeds(seeds)}"
    )


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in words.

    >>> _seeds([0, 1, 2]), _seeds([3]), _seeds([1, 4])
    ('0-2', '3', '1, 4')
    """
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def _decimals(row: Mapping[str, Any]) -> int:
    """As many as tell: of shares and rounds one, of an index three, of bytes and seconds by their size."""
    if row["unit"] in ("share", "rounds", "index"):
        return 3 if row["unit"] == "index" else 1
    size = abs(row["mean"]) * _SCALES[row["unit"]]
    return 0 if not size > 0 or size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
