"""What a person sees in the terminal: progress, tables, lists."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedali.methods import describe_methods
from fedali_simulations.deployed import Traffic
from fedali_simulations.jobs import Progress as JobProgress
from fedali_simulations.results import MEASURES, Results
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

    def report(self, progress: JobProgress) -> None:
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
    table = Table(
        title=f"{results.scenario.name}: accuracy in %, at the round chosen on validation data",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    headings = (
        "mean\n± seeds",
        "std",
        "worst\n10 %",
        "macro\nF1",
        "trans-\nductive",
        "last\nround",
        "chosen\nround",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    method = None
    for line in results.table.to_dict("records"):
        if line["method"] != method:
            method = line["method"]
            table.add_row(f"[bold]{escape(method)}[/bold]")
        table.add_row(f"  {line['measure']}", *_cells(line), end_section=line["measure"] == MEASURES[-1])
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
    if results.folder.exists():
        console.print(f"everything this left: {results.folder}", highlight=False, soft_wrap=True)


def print_traffic(traffic: Mapping[str, Traffic], console: Console) -> None:
    """What runs over devices cost on the way, a line each."""
    for title, one in traffic.items():
        states = ", ".join(f"{count} {state}" for state, count in sorted(one.states.items()))
        console.print(
            f"{title}: {one.sent / 1e6:.2f} MB to devices and {one.received / 1e6:.2f} MB from them a round, "
            f"{one.seconds:.1f} s a round; updates over all rounds: {states}",
            highlight=False,
            soft_wrap=True,
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


def _cells(line: Mapping[Hashable, Any]) -> list[str]:
    if math.isnan(line["accuracy"]):
        return ["–"] * 7
    mean = _percent(line["accuracy"])
    if not math.isnan(line["seed_std"]):
        mean = f"{mean} ± {_percent(line['seed_std'])}"
    rest = [
        _percent(line[name])
        for name in ("client_std", "worst_decile", "macro_f1", "transductive", "last_round")
    ]
    return [mean, *rest, f"{line['selected_round']:.{0 if line['seeds'] == 1 else 1}f}"]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
