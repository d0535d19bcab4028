"""What a person sees in the terminal: progress, tables, lists."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedali.methods import describe_methods
from fedali_simulations import run
from fedali_simulations.results import Results
from fedali_simulations.scenario import Scenario, builtin_scenarios


class Display:
    """A live bar for each method and seed; when interrupted, it says how to go on."""

    def __init__(self, scenario: Scenario, folder: Path, console: Console) -> None:
        self._console, self._folder = console, folder
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[accuracy]}"),
            TimeElapsedColumn(),
            console=console,
            disable=console.quiet,
        )
        self._bars: dict[tuple[str, int], TaskID] = {}
        self._seeds = scenario.seeds
        description = scenario.description or f"scenario {scenario.name}"
        console.print(f"[bold]{scenario.name}[/bold]: {description}", highlight=False)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is KeyboardInterrupt:
            self._console.print(
                f"stopped; continue with: fedali simulate --resume {self._folder}", highlight=False
            )

    def report(self, progress: run.Progress) -> None:
        """Move a bar."""
        key = (progress.label, progress.seed)
        if key not in self._bars:
            name = f"{progress.label} seed {progress.seed}" if self._seeds > 1 else progress.label
            self._bars[key] = self._progress.add_task(name, total=progress.rounds, accuracy="")
        accuracy = (
            "" if progress.personalisation is None else f"personalisation {progress.personalisation:6.1%}"
        )
        self._progress.update(self._bars[key], completed=progress.round, accuracy=accuracy)


def print_results(results: Results, console: Console) -> None:
    """The table, what it means, and where everything is."""
    table = Table(title=f"{results.scenario.name}: accuracy in %, at the round chosen on validation data")
    table.add_column("method")
    table.add_column("measure")
    for heading in (
        "mean",
        "± seeds",
        "std clients",
        "worst 10 %",
        "macro-F1",
        "transductive",
        "last round",
        "round",
    ):
        table.add_column(heading, justify="right")
    lines = results.table.to_dict("records")
    for number, line in enumerate(lines):
        first = not number or lines[number - 1]["method"] != line["method"]
        last = number + 1 == len(lines) or lines[number + 1]["method"] != line["method"]
        if math.isnan(line["accuracy"]):
            table.add_row(line["method"] if first else "", line["measure"], *["–"] * 8, end_section=last)
            continue
        names = (
            "accuracy",
            "seed_std",
            "client_std",
            "worst_decile",
            "macro_f1",
            "transductive",
            "last_round",
        )
        table.add_row(
            line["method"] if first else "",
            line["measure"],
            *[_percent(line[name]) for name in names],
            f"{line['selected_round']:.0f}" if line["seeds"] == 1 else f"{line['selected_round']:.1f}",
            end_section=last,
        )
    console.print(table)
    if results.unseen is not None:
        unseen = Table(
            title="clients that never took part: accuracy in % before and after one local training"
        )
        for heading in ("method", "before", "after"):
            unseen.add_column(heading, justify="right" if heading != "method" else "left")
        for method, rows in results.unseen.groupby("method", sort=False):
            unseen.add_row(str(method), _percent(rows["before"].mean()), _percent(rows["after"].mean()))
        console.print(unseen)
    seeds = results.scenario.seeds
    console.print(
        f"{seeds} seed{'s' if seeds > 1 else ''}, {results.scenario.training.rounds} rounds. "
        "personalisation: a client's model on its own test data; generalisation: on everyone's; "
        "global: the server's model on all test data.",
        highlight=False,
    )
    console.print(
        f"pictures, models and per-client numbers: {results.folder}", highlight=False, soft_wrap=True
    )


def print_scenarios(console: Console) -> None:
    """Built-in scenarios, then methods."""
    table = Table(title="scenarios: fedali simulate NAME")
    table.add_column("name", style="bold")
    table.add_column("what it is")
    for name, description in builtin_scenarios().items():
        table.add_row(name, description)
    console.print(table)
    methods = Table(title="methods: --set methods=NAME,NAME")
    methods.add_column("name", style="bold")
    methods.add_column("what it is")
    for name, summary in describe_methods().items():
        methods.add_row(name, summary)
    console.print(methods)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
