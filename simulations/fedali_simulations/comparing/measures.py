"""What is compared: numbers of each method, seed and client, and what follows of them over clients.

A column of the per-client metrics that has a macro-F1 beside it (``<name>_f1``) is an accuracy of its own, whatever it is called; a
new one in the evaluation is compared without a word here.
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

from fedali.metrics import spread
from fedali_simulations.comparing.statistics import gini
from fedali_simulations.report.results import MEASURES, Results

Better = Literal["more", "less"]
Unit = Literal["share", "bytes", "megabytes", "seconds", "rounds", "index"]

COST, WORST, GATE, FORGETTING, TARGET = "cost", "worst decile", "gate", "forgetting", "to"
_F1, _ECE = "_f1", "_ece"
_NOT_COMPARED = ("validation",)  # chooses the round
_ELSEWHERE = "_transductive"  # the published inference of the same models: in table.csv


@dataclass(frozen=True)
class Measure:
    """One number of each method, seed and, where there is one, client.

    Args:
        name: such as ``personalisation``, or ``personalisation worst decile``.
        about: the accuracy that it belongs to, its own name for one; or ``COST``, ``GATE``, ``FORGETTING``, or ``TARGET`` and which.
        better: which way.
        unit: ``share``: 0 to 1.
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
    for name in _accuracies(results.clients):
        found += _about(name, chosen, methods)
        found += _without_own(results, chosen, methods) if name == "generalisation" else []
    if results.unseen is not None:
        for moment in results.moments:
            name = f"unseen {moment.replace('_', ' ')}"
            rows = results.unseen.rename(columns={moment: name, f"{moment}_f1": f"{name}_f1"})
            found += (m for m in _about(name, rows, methods) if m.clients is not None)
    found += _gates(chosen, methods)
    for name, unit in (("bytes down", "bytes"), ("bytes up", "bytes"), ("compute", "seconds")):
        seeds = costs.pivot(index="seed", columns="method", values=name).reindex(columns=methods)
        found.append(Measure(name, COST, "less", unit, seeds, tested=False))  # type: ignore[arg-type]
    return [measure for measure in found if measure.seeds.notna().to_numpy().any()]


def _accuracies(clients: pd.DataFrame) -> list[str]:
    """Columns that are accuracies, those of the table first."""
    others = [str(name).removesuffix(_F1) for name in clients if str(name).endswith(_F1)]
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


def _about(name: str, rows: pd.DataFrame, methods: Sequence[str]) -> Iterator[Measure]:
    """An accuracy, and what says how it is spread and what it is worth."""
    weights = _weights(name, rows)
    clients = pivot(rows, name, methods)
    yield Measure(name, name, "more", "share", over_clients(clients, weights), clients, weights)
    worst = _by_seed(clients, lambda values: spread(values).worst_decile)
    yield Measure(f"{name} {WORST}", name, "more", "share", worst)
    yield Measure(f"{name} Gini", name, "less", "index", _by_seed(clients, gini))
    for ending, title, better in ((_F1, "macro-F1", "more"), (_ECE, "ECE", "less")):
        if f"{name}{ending}" in rows:
            table = pivot(rows, f"{name}{ending}", methods)
            yield Measure(
                f"{name} {title}",
                name,
                better,  # type: ignore[arg-type]
                "share",
                over_clients(table, None),
                table,
            )


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


def _gates(rows: pd.DataFrame, methods: Sequence[str]) -> Iterator[Measure]:
    """How well clients' gates know whose a sample is, and what is lost to one that knows."""
    if "gate_auc" not in rows:
        return
    lost = rows["generalisation_perfect"] - rows["generalisation"]
    rows = rows.assign(gate_lost=lost)
    for column, title, better, unit in (
        ("gate_auc", "AUC", "more", "index"),
        ("gate_agreement", "agreement", "more", "share"),
        ("gate_own", "own", "more", "share"),
        ("generalisation_perfect", "perfect", "more", "share"),
        ("gate_lost", "lost", "less", "share"),
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
