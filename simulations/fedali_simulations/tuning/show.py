"""A search in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.table import Table

from fedali_server.console import Console
from fedali_simulations.metrics import MetricsFiles
from fedali_simulations.tuning.search import MEASURES, Search, Trial
from fedali_simulations.tuning.tuning import FOUND, Tuned

_SHOWN = 10  # trials


def numbers(folder: Path, wanted: Search) -> Callable[[str, int], str]:
    """What says of a trial and a seed that are complete what they found."""

    def say(title: str, seed: int) -> str:
        run = folder / title / f"seed-{seed}"
        facts = json.loads((run / "done.json").read_text("utf-8"))
        if "diverged" in facts:
            return "diverged"
        rows = MetricsFiles(run).read_metrics(facts["rounds"])
        rows = rows[rows["round"] == facts["best_round"]]
        return ", ".join(f"{name} {100 * rows[name].mean():.1f}" for name in MEASURES[wanted.measure]) + " %"

    return say


def print_tuned(tuned: Tuned, console: Console) -> None:
    """The best trials, the first, and how to go on."""
    wanted = tuned.wanted
    line = tuned.asked.methods[0].title
    measure = "mean of personalisation and generalisation" if wanted.measure == "both" else wanted.measure
    ordered = sorted(tuned.trials, key=lambda trial: (-trial.value, trial.number))
    console.print(f"{tuned.asked.name}, {line}: {measure} on validation data", style="bold")
    console.print()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in ("trial", "%", *(key.rpartition(".")[2].replace("_", "\n") for key in wanted.space)):
        table.add_column(heading, justify="right", overflow="fold")
    for trial in ordered[:_SHOWN]:
        table.add_row(*_cells(trial, wanted), style="bold" if trial is ordered[0] else None)
    if tuned.trials[0] not in ordered[:_SHOWN]:
        table.add_section()
        table.add_row(*_cells(tuned.trials[0], wanted))
    console.print(table)
    console.print()
    console.print(
        f"{len(tuned.trials)} trials; trial 0 has the settings as they were. Seeds {', '.join(map(str, wanted.seeds))}: not to be reported. "
        "No test data were read."
    )
    console.say(f"what was found: {tuned.folder / FOUND}")


def _cells(trial: Trial, wanted: Search) -> list[str]:
    value = "diverged" if trial.diverged else f"{100 * trial.value:.1f}"
    return [str(trial.number), value, *(f"{trial.settings[key]:g}" for key in wanted.space)]
