"""What a study found: per-client numbers, and the table over clients and seeds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedali.data import Federation
from fedali.metrics import spread
from fedali.targets import Score, of_score
from fedali.tasks import Task
from fedali_simulations.data import load_federation
from fedali_simulations.scenario import Scenario
from fedali_simulations.training_settings import TrainingSettings

if TYPE_CHECKING:
    from fedali.models import Model

MEASURES = ("personalisation", "generalisation", "global")


@dataclass(frozen=True)
class Results:
    """Results of a study.

    Args:
        scenario: what was run, resolved.
        folder: where everything is.
        clients: a row for each method, seed, round and client; accuracies and macro-F1 0..1.
        selected: (method, seed) -> the round with the best mean validation accuracy.
        unseen: a row for each method, seed and client that was held out of training; None without.
        timing: seconds and CPU seconds by method, the mean over seeds, of one round.
        objects: of this process that the scenario names; they are known there for as long as these results are.
    """

    scenario: Scenario
    folder: Path
    clients: pd.DataFrame
    selected: dict[tuple[str, int], int]
    unseen: pd.DataFrame | None
    timing: pd.DataFrame
    objects: tuple[object, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        from fedali_simulations.report.shown import to_text

        return to_text(self)

    def _repr_html_(self) -> str:
        from fedali_simulations.report.shown import to_html

        return to_html(self)

    def federation(self, seed: int | None = None) -> Federation:
        """The clients with their samples, parts and normalisation, of a seed; the first one without."""
        return load_federation(self.scenario, self.scenario.seed if seed is None else seed)

    def models(self, method: str, seed: int | None = None) -> dict[str, Model]:
        """Each client's model as it was trained last, by the client's name; what ``training.keep_models`` left of it.

        ``method`` is called as in the table; without ``seed`` the first one's. A model takes normalised samples, as those of
        ``federation``: ``federation.normalisation[k](client.x_test)``. Raises ``SettingsError`` where there are none.
        """
        from fedali_simulations.report.trained import trained_models

        return trained_models(self, method, self.scenario.seed if seed is None else seed)

    @property
    def moments(self) -> list[str]:
        """Columns of ``unseen`` that are accuracies: ``before``, ``after_<k>`` with k labelled samples, ``after``; in that order."""
        names = [] if self.unseen is None else [str(name) for name in self.unseen]
        return [name for name in names if re.fullmatch(r"before|after(_[0-9]+)?", name)]

    @property
    def task(self) -> Task:
        """What was learnt."""
        return self.scenario.task.build()

    @property
    def table(self) -> pd.DataFrame:
        """The table: a row for each method and measure, at the round chosen on validation data.

        ``accuracy``, ``client_std``, ``worst_decile`` and ``macro_f1`` are over clients, then the mean over seeds;
        ``seed_std`` is the sample standard deviation of ``accuracy`` over seeds. ``transductive`` is the accuracy
        of the published inference, ``last_round`` that of the last round. ``global`` weighs clients by their test
        data: accuracy on all test data together. All are 0..1; NaN where a method has no such number. ``rounds`` is how many there
        were, which are fewer where ``training.patience`` stopped.

        Of another task than classification the columns are its scores (``fedali.tasks``) in the places of ``accuracy`` and ``macro_f1``, and
        ``worst_decile`` is of the clients with the worst ones.
        """
        lines: list[dict[str, Any]] = []
        for label in dict.fromkeys(self.clients["method"]):
            lines += [self._line(label, measure) for measure in MEASURES]
        return pd.DataFrame(lines)

    def _line(self, label: str, measure: str) -> dict[str, Any]:
        main, beside = self.task.main, self.task.beside
        of_method = self.clients[self.clients["method"] == label]
        per_seed = []
        for seed in sorted(of_method["seed"].unique()):
            of_seed = of_method[of_method["seed"] == seed]
            last = int(of_seed["round"].max())
            chosen = of_seed[of_seed["round"] == self.selected[label, int(seed)]]
            per_seed.append(
                {
                    main.name: _mean(chosen, measure),
                    "client_std": spread(_column(chosen, measure)).std,
                    "worst_decile": worst_decile(_column(chosen, measure), main),
                    **{one.name: spread(_column(chosen, f"{measure}{one.ending}")).mean for one in beside},
                    "transductive": _mean(chosen, f"{measure}_transductive"),
                    "last_round": _mean(of_seed[of_seed["round"] == last], measure),
                }
            )
        seeds = pd.DataFrame(per_seed)
        means: dict[str, Any] = {str(name): float(seeds[name].mean()) for name in seeds}
        deviation = float(seeds[main.name].std()) if len(seeds) > 1 else math.nan
        rounds = [self.selected[label, int(seed)] for seed in sorted(of_method["seed"].unique())]
        return {
            "method": label,
            "measure": measure,
            **means,
            "seed_std": deviation,
            "seeds": len(seeds),
            "selected_round": float(np.mean(rounds)),
            "rounds": float(of_method.groupby("seed")["round"].max().mean()),
        }

    @property
    def targets(self) -> pd.DataFrame | None:
        """Of regression: a row for each method, measure and target, at the round chosen on validation data.

        ``mae`` and ``rmse`` in ``unit``, ``r2`` the share of the variance that is explained; means over clients, then seeds. None of other tasks.
        """
        names = of_score([str(name) for name in self.clients], MEASURES[0], "mae")
        if self.task.kind != "numbers" or not names:
            return None
        units = getattr(self.task, "units", ()) or ("",) * len(names)
        lines: list[dict[str, Any]] = []
        for label in dict.fromkeys(self.clients["method"]):
            rows = self.clients[self.clients["method"] == label]
            chosen = [
                rows[(rows["seed"] == seed) & (rows["round"] == self.selected[label, int(seed)])]
                for seed in sorted(rows["seed"].unique())
            ]
            for measure in MEASURES:
                for target, unit in zip(names, units, strict=True):
                    numbers = {
                        what: float(np.mean([_mean(one, f"{measure}_{what}_{target}") for one in chosen]))
                        for what in ("mae", "rmse", "r2")
                    }
                    lines.append(
                        {"method": label, "measure": measure, "target": target, "unit": unit, **numbers}
                    )
        return pd.DataFrame(lines)

    @property
    def stopped(self) -> str:
        """What ended before the last round, in a sentence; empty where nothing did. A forest has one round in any case."""
        short = []
        for line in self.scenario.methods:
            mine = self.clients[self.clients["method"] == line.title].groupby("seed")["round"].max()
            if not line.name.startswith("forest") and (mine < self.scenario.training.rounds).any():
                short.append(f"{line.title} after {', '.join(str(int(last)) for last in mine)}")
        return f"Rounds until validation was no better, a number a seed: {'; '.join(short)}." if short else ""

    def to_dict(self) -> dict[str, Any]:
        """The results as plain JSON values; NaN becomes null."""
        found: dict[str, Any] = {
            "scenario": self.scenario.name,
            "folder": str(self.folder),
            "rounds": self.scenario.training.rounds,
            "table": json.loads(self.table.to_json(orient="records", double_precision=15)),
            "timing": json.loads(self.timing.to_json(orient="records")),
        }
        targets = self.targets
        if targets is not None:
            found["targets"] = json.loads(targets.to_json(orient="records", double_precision=15))
        if self.unseen is not None:
            means = self.unseen.groupby("method", sort=False)[self.moments].mean().reset_index()
            found["unseen"] = json.loads(means.to_json(orient="records", double_precision=15))
        return found


def worst_decile(values: Sequence[float], score: Score) -> float:
    """The mean of the tenth of the clients that are worst, at least one."""
    if score.better == "more":
        return spread(values).worst_decile
    return -spread([-value for value in values]).worst_decile


def _column(rows: pd.DataFrame, name: str) -> list[float]:
    return [float(value) for value in rows[name]] if name in rows else []


def _mean(rows: pd.DataFrame, measure: str) -> float:
    """Mean over clients; of ``global`` weighted by test samples."""
    if not measure.startswith("global"):
        return spread(_column(rows, measure)).mean
    if measure not in rows:
        return math.nan
    known = rows.dropna(subset=[measure])
    return float(np.average(known[measure], weights=known["test_samples"])) if len(known) else math.nan


def to_markdown(results: Results, machine: Mapping[str, Any]) -> str:
    """The table for a document: accuracy in %, or the task's main score, over clients ± over seeds, with what it was measured on.

    ``machine`` is ``fedali_simulations.study.environment``'s.
    """
    training, packages = results.scenario.training, machine["packages"]
    main, beside = results.task.main, results.task.beside[:1]
    unit = "in %" if main.share else f"{main.title}, {main.better} is better"
    if main.share and main.name != "accuracy":
        unit = f"{main.title} {unit}"
    lines = [
        f"Scenario `{results.scenario.name}`: {results.scenario.seeds} seed(s), {training.rounds} rounds of "
        f"{training.epochs} epochs, batch {training.batch_size}, {training.optimizer} {_rate(training)}; "
        f"{results.clients['client'].nunique()} clients. Mean over clients ± standard deviation over seeds, {unit}."
        + (" Measured on validation data." if results.scenario.evaluation.on == "validation" else ""),
        "",
        "| method | personalisation | worst 10 % | generalisation | global |"
        + "".join(f" {one.title} (pers.) |" for one in beside)
        + " CPU s/round |",
        "|---|---|---|---|---|" + "---|" * len(beside) + "---|",
    ]
    table = results.table.set_index(["method", "measure"])
    seconds = results.timing.set_index("method")["cpu_seconds_per_round"]
    for label in dict.fromkeys(results.clients["method"]):
        cells = [_cell(table.loc[label, measure], main) for measure in MEASURES]
        own = table.loc[label, MEASURES[0]]
        worst = main.number(own["worst_decile"])
        more = "".join(f" {one.number(own[one.name])} |" for one in beside)
        lines.append(
            f"| {label} | {cells[0]} | {worst} | {cells[1]} | {cells[2]} |{more} {seconds[label]:.1f} |"
        )
    lines += _of_targets(results.targets)
    if results.stopped:
        lines += ["", results.stopped]
    lines += [
        "",
        f"Measured on {machine['cores']} cores of {machine['processor']}, Python {machine['python']}, "
        f"torch {packages['torch']}, flwr {packages['flwr']}, FedAli {machine['fedali']}.",
    ]
    return "\n".join(lines) + "\n"


def _of_targets(targets: pd.DataFrame | None) -> list[str]:
    """A table of each target, of regression."""
    if targets is None:
        return []
    rows = [line for line in targets.to_dict("records") if not math.isnan(line["mae"])]
    return [
        "",
        "| method | measure | target | MAE | RMSE | R2 |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(target_cells(line))} |" for line in rows),
    ]


def target_cells(line: Mapping[Any, Any]) -> list[str]:
    """A row of ``Results.targets`` for people."""
    errors = [f"{line[name]:.4g} {line['unit']}".rstrip() for name in ("mae", "rmse")]
    fit = "–" if math.isnan(line["r2"]) else f"{line['r2']:.3f}"
    return [line["method"], line["measure"], line["target"], *errors, fit]


def _rate(training: TrainingSettings) -> str:
    """The learning rate, and what else there is of it, in words.

    >>> _rate(TrainingSettings(schedule="cosine", weight_decay=0.01))
    '0.001, cosine, weight decay 0.01'
    """
    more: list[str] = [] if training.schedule == "constant" else [training.schedule]
    more += [f"warm-up {training.warmup_rounds}"] if training.warmup_rounds else []
    more += [f"weight decay {training.weight_decay:g}"] if training.weight_decay else []
    more += [f"gradients clipped to {training.clip_norm:g}"] if training.clip_norm else []
    return ", ".join([f"{training.learning_rate:g}", *more])


def _cell(line: Mapping[str, Any], main: Score) -> str:
    if math.isnan(line[main.name]):
        return "–"
    spread_over_seeds = "" if math.isnan(line["seed_std"]) else f" ± {main.number(line['seed_std'])}"
    return f"{main.number(line[main.name])}{spread_over_seeds}"
