"""What a study found: per-client numbers, and the table over clients and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedali.data import Federation
from fedali.metrics import spread
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
        return [name for name in names if f"{name}_f1" in names]

    @property
    def table(self) -> pd.DataFrame:
        """The table: a row for each method and measure, at the round chosen on validation data.

        ``accuracy``, ``client_std``, ``worst_decile`` and ``macro_f1`` are over clients, then the mean over seeds;
        ``seed_std`` is the sample standard deviation of ``accuracy`` over seeds. ``transductive`` is the accuracy
        of the published inference, ``last_round`` that of the last round. ``global`` weighs clients by their test
        data: accuracy on all test data together. All are 0..1; NaN where a method has no such number. ``rounds`` is how many there
        were, which are fewer where ``training.patience`` stopped.
        """
        lines: list[dict[str, Any]] = []
        for label in dict.fromkeys(self.clients["method"]):
            lines += [self._line(label, measure) for measure in MEASURES]
        return pd.DataFrame(lines)

    def _line(self, label: str, measure: str) -> dict[str, Any]:
        of_method = self.clients[self.clients["method"] == label]
        per_seed = []
        for seed in sorted(of_method["seed"].unique()):
            of_seed = of_method[of_method["seed"] == seed]
            last = int(of_seed["round"].max())
            chosen = of_seed[of_seed["round"] == self.selected[label, int(seed)]]
            per_seed.append(
                {
                    "accuracy": _mean(chosen, measure),
                    "client_std": spread(_column(chosen, measure)).std,
                    "worst_decile": spread(_column(chosen, measure)).worst_decile,
                    "macro_f1": spread(_column(chosen, f"{measure}_f1")).mean,
                    "transductive": _mean(chosen, f"{measure}_transductive"),
                    "last_round": _mean(of_seed[of_seed["round"] == last], measure),
                }
            )
        seeds = pd.DataFrame(per_seed)
        means: dict[str, Any] = {str(name): float(seeds[name].mean()) for name in seeds}
        deviation = float(seeds["accuracy"].std()) if len(seeds) > 1 else math.nan
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
        if self.unseen is not None:
            means = self.unseen.groupby("method", sort=False)[self.moments].mean().reset_index()
            found["unseen"] = json.loads(means.to_json(orient="records", double_precision=15))
        return found


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
    """The table for a document: accuracy in % over clients ± over seeds, with what it was measured on.

    ``machine`` is ``fedali_simulations.study.environment``'s.
    """
    training, packages = results.scenario.training, machine["packages"]
    lines = [
        f"Scenario `{results.scenario.name}`: {results.scenario.seeds} seed(s), {training.rounds} rounds of "
        f"{training.epochs} epochs, batch {training.batch_size}, {training.optimizer} {_rate(training)}; "
        f"{results.clients['client'].nunique()} clients. Mean over clients ± standard deviation over seeds, in %."
        + (" Measured on validation data." if results.scenario.evaluation.on == "validation" else ""),
        "",
        "| method | personalisation | worst 10 % | generalisation | global | macro-F1 (pers.) | CPU s/round |",
        "|---|---|---|---|---|---|---|",
    ]
    table = results.table.set_index(["method", "measure"])
    seconds = results.timing.set_index("method")["cpu_seconds_per_round"]
    for label in dict.fromkeys(results.clients["method"]):
        cells = [_cell(table.loc[label, measure]) for measure in MEASURES]
        own = table.loc[label, MEASURES[0]]
        worst, f1 = (f"{100 * own[name]:.1f}" for name in ("worst_decile", "macro_f1"))
        lines.append(
            f"| {label} | {cells[0]} | {worst} | {cells[1]} | {cells[2]} | {f1} | {seconds[label]:.1f} |"
        )
    if results.stopped:
        lines += ["", results.stopped]
    lines += [
        "",
        f"Measured on {machine['cores']} cores of {machine['processor']}, Python {machine['python']}, "
        f"torch {packages['torch']}, flwr {packages['flwr']}, FedAli {machine['fedali']}.",
    ]
    return "\n".join(lines) + "\n"


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


def _cell(line: Mapping[str, Any]) -> str:
    if math.isnan(line["accuracy"]):
        return "–"
    spread_over_seeds = "" if math.isnan(line["seed_std"]) else f" ± {100 * line['seed_std']:.1f}"
    return f"{100 * line['accuracy']:.1f}{spread_over_seeds}"
