"""What is compared: numbers of each method, seed and client, and what follows of them over clients.

A column of the per-client metrics that has another score of the task beside it (``<name>_f1``) is an accuracy of its own, whatever it is
called; a new one in the evaluation is compared without a word here. Of other tasks than classification, their main score stands where
accuracy does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedali.targets import Score
from fedali.tasks import Task
from fedali_simulations.comparing.statistics import gini
from fedali_simulations.report.results import MEASURES, Results, worst_decile

Better = Literal["more", "less"]
Unit = Literal["share", "bytes", "megabytes", "seconds", "rounds", "index"]

COST, WORST, GATE, FORGETTING, TARGET = "cost", "worst decile", "gate", "forgetting", "to"
_ECE = Score("_ece", "ece", "ECE", "less")
_NOT_COMPARED = ("validation",)  # chooses the round
_ELSEWHERE = "_transductive"  # the published inference of the same models: in table.csv


@dataclass(frozen=True)
class Measure:
    """One number of each method, seed and, where there is one, client.

    Args:
        name: such as ``personalisation``, or ``personalisation worst decile``.
        about: the accuracy, or the task's main score, that it belongs to, its own name for one; or ``COST``, ``GATE``, ``FORGETTING``, or ``TARGET`` and which.
        better: which way.
        unit: ``share``: 0 to 1; ``index``: a number without a unit.
        seeds: a row a seed, a column a method.
        clients: a row (seed, client), a column a method; None where a number is of all clients together.
        weights: of the rows of ``clients`` in a mean over clients; None where all count the same.
        tested: whether methods are tested against each other by it.
    """

    name: str
    about: str
    better: Better
    unit: Unit
    seeds: pd.DataFrame
    clients: pd.DataFrame | None = None
    weights: pd.Series[float] | None = None
    tested: bool = True

    def over_clients(self, table: pd.DataFrame) -> pd.DataFrame:
        """The means over clients of each seed, of numbers in the form of ``clients``; NaNs are left out."""
        return over_clients(table, self.weights)


def measures_of(results: Results, costs: pd.DataFrame) -> list[Measure]:
    """Every measure of a study, at the rounds chosen on validation data; those that no method has are left out.

    ``costs`` has a row for each method and seed: see ``fedali_simulations.comparing.costs``.
    """
    methods = list(dict.fromkeys(results.clients["method"]))
    chosen = _chosen(results)
    found: list[Measure] = []
    task = results.task
    for name in _accuracies(results.clients, task):
        found += _about(name, chosen, methods, task)
        if name == "generalisation" and task.main.name == "accuracy":
            found += _without_own(results, chosen, methods)
    if results.unseen is not None:
        for moment in results.moments:
            name = f"unseen {moment.replace('_', ' ')}"
            endings = ("", *(one.ending for one in task.beside))
            rows = results.unseen.rename(columns={f"{moment}{end}": f"{name}{end}" for end in endings})
            found += (m for m in _about(name, rows, methods, task) if m.clients is not None)
    found += _gates(chosen, methods, task.main)
    for name, unit in (("bytes down", "bytes"), ("bytes up", "bytes"), ("compute", "seconds")):
        seeds = costs.pivot(index="seed", columns="method", values=name).reindex(columns=methods)
        found.append(Measure(name, COST, "less", unit, seeds, tested=False))  # type: ignore[arg-type]
    return [measure for measure in found if measure.seeds.notna().to_numpy().any()]


def _accuracies(clients: pd.DataFrame, task: Task) -> list[str]:
    """Columns that are accuracies, those of the table first."""
    ending = task.beside[0].ending if task.beside else "none"
    others = [str(name).removesuffix(ending) for name in clients if str(name).endswith(ending)]
    return [
        name
        for name in dict.fromkeys((*MEASURES, *others))
        if name in clients and name not in _NOT_COMPARED and not name.endswith(_ELSEWHERE)
    ]


def _chosen(results: Results) -> pd.DataFrame:
    """The rows of each method and seed at its round."""
    keys = zip(results.clients["method"], results.clients["seed"], strict=True)
    rounds = np.array([results.selected[method, int(seed)] for method, seed in keys])
    rows: pd.DataFrame = results.clients[results.clients["round"].to_numpy() == rounds]
    return rows


def _about(name: str, rows: pd.DataFrame, methods: Sequence[str], task: Task) -> Iterator[Measure]:
    """An accuracy, and what says how it is spread and what it is worth."""
    weights = _weights(name, rows)
    clients = pivot(rows, name, methods)
    main = task.main
    unit = _unit(main)
    yield Measure(name, name, main.better, unit, over_clients(clients, weights), clients, weights)
    worst = _by_seed(clients, lambda values: worst_decile(values, main))
    yield Measure(f"{name} {WORST}", name, main.better, unit, worst)
    yield Measure(f"{name} Gini", name, "less", "index", _by_seed(clients, gini))
    for one in (*task.beside, _ECE):
        if f"{name}{one.ending}" in rows:
            table = pivot(rows, f"{name}{one.ending}", methods)
            yield Measure(
                f"{name} {one.title}", name, one.better, _unit(one), over_clients(table, None), table
            )


def _unit(score: Score) -> Unit:
    return "share" if score.share else "index"


def _without_own(results: Results, rows: pd.DataFrame, methods: Sequence[str]) -> Iterator[Measure]:
    """Generalisation to others alone: what is right of everyone's test samples without what is right of a client's own."""
    if "test_samples" not in rows:
        return
    keys = ["seed", "client"]
    own = results.clients.groupby(keys)["test_samples"].max()  # each client's, whichever method says so
    everyone = own.groupby(level="seed").sum()
    count = own.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    total = everyone.reindex(rows["seed"]).to_numpy()
    right = rows["generalisation"] * total - rows["personalisation"] * count
    table = pivot(rows.assign(others=right / (total - count)), "others", methods)
    yield Measure(
        "generalisation others", "generalisation", "more", "share", over_clients(table, None), table
    )


def _gates(rows: pd.DataFrame, methods: Sequence[str], main: Score) -> Iterator[Measure]:
    """How well clients' gates know whose a sample is, and what is lost to one that knows."""
    if "gate_auc" not in rows:
        return
    lost = rows["generalisation_perfect"] - rows["generalisation"]
    lost = lost if main.better == "more" else -lost
    rows = rows.assign(gate_lost=lost)
    for column, title, better, unit in (
        ("gate_auc", "AUC", "more", "index"),
        ("gate_agreement", "agreement", "more", "share"),
        ("gate_own", "own", "more", "share"),
        ("generalisation_perfect", "perfect", main.better, _unit(main)),
        ("gate_lost", "lost", "less", _unit(main)),
    ):
        table = pivot(rows, column, methods)
        yield Measure(f"{GATE} {title}", GATE, better, unit, over_clients(table, None), table)  # type: ignore[arg-type]


def weights_of(name: str, rows: pd.DataFrame) -> npt.NDArray[np.float64] | None:
    """What rows of one round count in a mean over clients; None where all count the same."""
    if not name.startswith("global"):
        return None
    return rows["test_samples"].to_numpy(np.float64)


def _weights(name: str, rows: pd.DataFrame) -> pd.Series[float] | None:
    """Test samples, where a mean over clients is that of all test data together: the server's one model."""
    if not name.startswith("global") or "test_samples" not in rows:
        return None
    return rows.groupby(["seed", "client"])["test_samples"].max()


def pivot(rows: pd.DataFrame, column: str, methods: Sequence[str]) -> pd.DataFrame:
    """One column of rows as a table: a row (seed, client), a column a method."""
    table = rows.pivot(index=["seed", "client"], columns="method", values=column)
    return table.reindex(columns=list(methods)).sort_index()


def over_clients(table: pd.DataFrame, weights: pd.Series[float] | None) -> pd.DataFrame:
    """The mean over clients of each seed of such a table; NaNs are left out."""
    if weights is None:
        return table.groupby(level="seed").mean()
    weigh = table.notna().mul(weights.reindex(table.index), axis=0)
    total = (table * weigh).groupby(level="seed").sum(min_count=1)
    return total / weigh.groupby(level="seed").sum().where(lambda sums: sums > 0)


def _by_seed(table: pd.DataFrame, function: Callable[[Sequence[float]], float]) -> pd.DataFrame:
    return table.groupby(level="seed").agg(partial(_apply, function))


def _apply(function: Callable[[Sequence[float]], float], values: pd.Series[float]) -> float:
    return function([float(v) for v in values]) if values.notna().any() else math.nan
