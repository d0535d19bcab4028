"""Run folders that are compared: they have to agree on everything but the method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from fedali.errors import CheckpointError, SettingsError
from fedali_simulations.baselines import BASELINES
from fedali_simulations.comparing.comparison import Comparison, Ratio, compare_measures
from fedali_simulations.comparing.costs import costs_of
from fedali_simulations.comparing.measures import measures_of
from fedali_simulations.comparing.over_rounds import forgetting, to_targets
from fedali_simulations.comparing.same import differences, trains_otherwise
from fedali_simulations.report.results import Results
from fedali_simulations.scenario import Scenario
from fedali_simulations.study import collect, existing, jobs_of, scenario_of


def compare_runs(
    folders: Sequence[Path | str], against: str | None = None, targets: Mapping[str, float] | None = None
) -> Comparison:
    """Compare the methods of complete runs, the first one's first line with the others unless ``against`` names another.

    ``targets`` are accuracies, by name, of which it is said what it takes to reach them: see ``over_rounds.to_targets``.

    Where two runs call a method the same, each is called ``<method> (<folder>)``.

    Raises ``SettingsError`` for runs over devices, and of other data, splits, budgets, models or seeds, naming what differs, ``CheckpointError`` for one that is
    not complete.
    """
    paths = [existing(folder) for folder in dict.fromkeys(map(Path, folders))]
    for path in paths:
        if (path / "federation.json").exists():
            raise SettingsError(
                f"{path} is a run over devices, which keep their tests to themselves: compare simulations"
            )
    scenarios = [scenario_of(path) for path in paths]
    for path, scenario in zip(paths[1:], scenarios[1:], strict=True):
        _check_same(paths[0], scenarios[0], path, scenario)
    found = [collect(scenario, path) for scenario, path in zip(scenarios, paths, strict=True)]
    costs = [costs_of(jobs_of(r.scenario, r.folder), r.folder, r.clients) for r in found]
    names = [_names(r, found) for r in found]
    results = _together(found, names)
    spent = pd.concat([_renamed(table, n) for table, n in zip(costs, names, strict=True)], ignore_index=True)
    methods = list(dict.fromkeys(results.clients["method"]))
    measures, ratio = measures_of(results, spent), _ratio(results.clients)
    measures += [*forgetting(results), *to_targets(results, spent, targets or {})]
    first = methods[0] if against is None else against
    return Comparison(
        scenarios[0],
        tuple(paths),
        first,
        ratio,
        tuple(measures),
        compare_measures(measures, methods, first, ratio.value),
        tuple(_notes(found, names)),
    )


def _check_same(first: Path, one: Scenario, path: Path, other: Scenario) -> None:
    """Raise ``SettingsError`` with the first thing that differs, unless it is a method's own."""
    before, after = _facts(first), _facts(path)
    same_data = before is not None and after is not None
    for name in before or {}:
        if before and after and before[name] != after.get(name):
            what = "samples or labels" if name == "sha256" else name
            raise SettingsError(f"{first} and {path} cannot be compared: their data differ in {what}")
    for key, mine, others in differences(one, other, same_data=same_data):
        raise SettingsError(
            f"{first} and {path} cannot be compared: {key} is {mine!r} there and {others!r} here. "
            "Run them with the same data, splits, budget and seeds"
        )


def _facts(folder: Path) -> Mapping[str, Any] | None:
    """What a run's data are; None of runs that did not note it."""
    path = folder / "data.json"
    if not path.exists():
        return None
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    return facts


def _names(results: Results, everything: Sequence[Results]) -> dict[str, str]:
    """What each method of a run is called among all: its title, with the folder where several runs have it."""
    titles = [line.title for each in everything for line in each.scenario.methods]
    mine = [line.title for line in results.scenario.methods]
    return {t: t if titles.count(t) == 1 else f"{t} ({results.folder})" for t in mine}


def _renamed(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return table.assign(method=table["method"].map(names))


def _together(found: Sequence[Results], names: Sequence[Mapping[str, str]]) -> Results:
    if len(found) == 1:
        return found[0]
    pairs = list(zip(found, names, strict=True))
    unseen = [_renamed(r.unseen, n) for r, n in pairs if r.unseen is not None]
    return replace(
        found[0],
        clients=pd.concat([_renamed(r.clients, n) for r, n in pairs], ignore_index=True),
        selected={(n[m], s): round_ for r, n in pairs for (m, s), round_ in r.selected.items()},
        unseen=pd.concat(unseen, ignore_index=True) if unseen else None,
        timing=pd.concat([_renamed(r.timing, n) for r, n in pairs], ignore_index=True),
    )


def _ratio(clients: pd.DataFrame) -> Ratio:
    """Over clients and seeds of which both numbers are known; they are the same for each method."""
    known = clients.groupby(["seed", "client"])[["samples", "test_samples"]].max().dropna()
    return Ratio(float(known["test_samples"].sum()), float(known["samples"].sum()))


def _notes(found: Sequence[Results], names: Sequence[Mapping[str, str]]) -> list[str]:
    """How the splits come about, and what of its training a line has for itself."""
    first = found[0].scenario
    anew = (
        first.partition.kind != "natural"
        or first.split.order == "random"
        or first.data.windows_per_client is not None
    )
    notes = [f"Clients and splits are {'drawn anew by' if anew else 'the same for'} each seed"]
    if first.evaluation.on != "test":
        notes.insert(0, f"All of it is measured on {first.evaluation.on} data")
    if first.partition.kind != "natural":
        notes.append("A client is one by its number: another seed gives it other samples")
    for results, called in zip(found, names, strict=True):
        for line in results.scenario.methods:
            own = trains_otherwise(results.scenario, line, first)
            if line.is_baseline:
                notes.append(f"{called[line.title]}, no federated method: {BASELINES[line.name]}")
            more = 0 if line.is_baseline else line.build().extra_epochs
            words = [f"{name} {value}" for name, value in own.items()] + (
                [f"{more} epochs more"] if more else []
            )
            if words:
                notes.append(f"{called[line.title]} trains with {', '.join(words)}")
    return notes
