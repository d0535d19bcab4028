"""What a person sees in the terminal: progress, tables, lists."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedali.targets import Score
from fedali_server.console import Console
from fedali_simulations.baselines import BASELINES
from fedali_simulations.federate.deployed import Traffic
from fedali_simulations.jobs import Progress as JobProgress
from fedali_simulations.report.pace import Pace, duration
from fedali_simulations.scenario import Scenario, builtin_scenarios

if TYPE_CHECKING:
    from fedali.tasks import Task
    from fedali_simulations.report.results import Results

_WIDE = 1000  # columns: a table's own width is asked for as if there were room
_EVERY = 5.0  # seconds between lines where no bar can be drawn


class Display:
    """How far each method and seed is, and how long it will still take; when interrupted, it says how to go on.

    On a terminal a bar each, elsewhere a plain line now and then. Each run that is complete leaves a line of its numbers.

    Args:
        scenario: what runs.
        folder: where; a run that is interrupted continues from there.
        console: to print to.
        numbers: of a method and a seed that is complete, in words.
        command: that takes ``--resume``.
    """

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        console: Console,
        numbers: Callable[[str, int], str],
        command: str = "simulate",
    ) -> None:
        self._console, self._folder, self._numbers, self._command = console, folder, numbers, command
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.live,
        )
        self._bars: dict[tuple[str, int], TaskID] = {}
        self._scenario, self._main = scenario, scenario.task.build().main
        self._runs = scenario.seeds * len(scenario.methods)
        self._pace = Pace(self._runs * scenario.training.rounds)
        self._total: TaskID | None = None
        self._done, self._said = 0, -math.inf
        description = scenario.description or f"scenario {scenario.name}"
        console.print(Text.assemble((console.text(scenario.name), "bold"), ": ", console.text(description)))

    def __enter__(self) -> Display:
        self._progress.start()
        if self._runs > 1:
            self._total = self._progress.add_task("all", total=self._pace.total, words="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is KeyboardInterrupt:
            self._console.say(f"stopped; continue with: fedali {self._command} --resume {self._folder}")

    def report(self, progress: JobProgress) -> None:
        """Take note of a round."""
        key = (progress.label, progress.seed)
        name = self._name(*key)
        accuracy = ""
        if progress.personalisation is not None:
            shown = self._main.text(progress.personalisation)
            accuracy = f"personalisation {shown.replace(' %', '%'):>6}"
        self._pace.note(name, progress.round)
        if progress.done:
            self._done += 1
            if not self._console.quiet:
                self._console.say(f"{name}: {self._numbers(*key)}")
        elif not self._console.live:
            self._say(f"{name}: round {progress.round} of {progress.rounds}", accuracy)
        if self._console.live:
            self._move(key, name, progress, accuracy)

    def _move(self, key: tuple[str, int], name: str, progress: JobProgress, accuracy: str) -> None:
        if key not in self._bars:
            shown = self._console.text(name)
            self._bars[key] = self._progress.add_task(shown, total=progress.rounds, words="")
        if accuracy:
            self._progress.update(self._bars[key], words=accuracy)
        self._progress.update(self._bars[key], completed=progress.round)
        if self._total is not None:
            self._progress.update(self._total, completed=self._pace.done, words=self._left())

    def _say(self, *parts: str) -> None:
        """A line, unless there was one just now."""
        now = time.monotonic()
        if now - self._said < _EVERY:
            return
        self._said = now
        runs = f"{self._done} of {self._runs} runs done" if self._runs > 1 else ""
        self._console.say(", ".join(part for part in (*parts, runs, self._left()) if part))

    def _left(self) -> str:
        left = self._pace.left()
        return "" if left is None else f"about {duration(left)} left"

    def _name(self, label: str, seed: int) -> str:
        return f"{label} seed {seed}" if self._scenario.seeds > 1 else label


def print_results(results: Results, console: Console) -> None:
    """The table, what it means, and where everything is."""
    from fedali_simulations.report.results import MEASURES

    lines = results.table.to_dict("records")
    main, beside = results.task.main, results.task.beside
    headings: list[tuple[str, ...]] = [
        (
            "mean\n± seeds",
            "std",
            "worst\n10 %",
            *(one.title.replace("-", "\n").replace(" ", "\n") for one in beside),
            "trans-\nductive",
            "last\nround",
            "chosen\nround",
        ),
        ("mean\n± seeds", "worst\n10 %"),
        ("mean\n± seeds",),
    ]
    everything = headings[0]
    on_validation = results.scenario.evaluation.on == "validation"
    chosen = "other training" if on_validation else "validation"
    for shown in headings:
        table = Table(
            title=f"{results.scenario.name}: {_heading(main)}, at the round chosen on {chosen} data",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        table.add_column("", overflow="fold", max_width=24 if console.width >= 80 else 18)
        for heading in shown:
            table.add_column(heading, justify="right", no_wrap=True)
        method = None
        for line in lines:
            if line["method"] != method:
                method = line["method"]
                table.add_row(method, style="bold")
            cells = dict(zip(everything, _cells(line, results.task), strict=True))
            last = line["measure"] == MEASURES[-1]
            table.add_row(f" {line['measure']}", *(cells[heading] for heading in shown), end_section=last)
        if (
            console.measure(table, options=console.options.update(width=_WIDE)).maximum <= console.width
        ):  # else with fewer columns
            break
    console.print(table)
    _print_targets(results, console)
    if results.unseen is not None:
        unseen = Table(
            title=f"clients that never took part: {_heading(main)} before and after one local training"
            + (", with k labelled samples and with all" if len(results.moments) > 2 else ""),
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
        )
        for heading in ("method", *results.moments):
            unseen.add_column(
                heading.replace("_", " "), justify="right" if heading != "method" else "left", overflow="fold"
            )
        for method, rows in results.unseen.groupby("method", sort=False):
            unseen.add_row(str(method), *(_number(rows[moment].mean(), main) for moment in results.moments))
        console.print(unseen)
    seeds = results.scenario.seeds
    console.print(
        f"{seeds} seed{'s' if seeds > 1 else ''}, {results.scenario.training.rounds} rounds. "
        "personalisation: a client's model on its own test data; generalisation: on everyone's; "
        "global: the server's model on all test data."
        + (" The test data here are validation data." if on_validation else "")
    )
    if results.stopped:
        console.print(results.stopped)
    if len(shown) < len(everything):
        console.print("There are more columns in a wider terminal, and in table.csv.")
    if results.folder.exists():
        console.say(f"everything this left: {results.folder}")


def print_traffic(traffic: Mapping[str, Traffic], console: Console) -> None:
    """What runs over devices cost on the way, a line each."""
    for title, one in traffic.items():
        states = ", ".join(f"{count} {state}" for state, count in sorted(one.states.items()))
        console.say(
            f"{title}: {one.sent / 1e6:.2f} MB to devices and {one.received / 1e6:.2f} MB from them a round, "
            f"{one.seconds:.1f} s a round; updates over all rounds: {states}"
        )


def print_next(folder: Path, results: Results, key: Path, console: Console) -> None:
    """What makes the trained model of a run over devices: its folder alone has no bundle of it."""
    methods = [line.title for line in results.scenario.methods]
    which = f" --method {shlex.quote(methods[0])}" if len(methods) > 1 else ""
    words = f"fedali export {shlex.quote(str(folder))}{which} --key {shlex.quote(str(key))}"
    console.say(f"the trained model, as a bundle: {words}")


def print_scenarios(console: Console) -> None:
    """Built-in scenarios, then methods."""
    from fedali.methods import describe_methods

    for title, rows in (
        ("scenarios: fedali simulate NAME", builtin_scenarios()),
        ("methods: --set methods=NAME,NAME", describe_methods()),
        ("to compare with, no federated methods: --set methods=NAME,NAME", BASELINES),
    ):
        console.print(title, style="italic")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", overflow="fold")
        table.add_column(overflow="fold")
        for name, what in rows.items():
            table.add_row(name, what)
        console.print(table)
        console.print()


def _cells(line: Mapping[Hashable, Any], task: Task) -> list[str]:
    main = task.main
    if math.isnan(line[main.name]):
        return ["–"] * (6 + len(task.beside))
    mean = _number(line[main.name], main)
    if not math.isnan(line["seed_std"]):
        mean = f"{mean} ± {_number(line['seed_std'], main)}"
    rest = [_number(line[name], main) for name in ("client_std", "worst_decile")]
    rest += [_number(line[one.name], one) for one in task.beside]
    rest += [_number(line[name], main) for name in ("transductive", "last_round")]
    return [mean, *rest, f"{line['selected_round']:.{0 if line['seeds'] == 1 else 1}f}"]


def _number(value: float, score: Score) -> str:
    return "–" if math.isnan(value) else score.number(value)


def _heading(score: Score) -> str:
    return f"{score.title} in %" if score.share else f"{score.title} ({score.better} is better)"


def _print_targets(results: Results, console: Console) -> None:
    """Of regression: the errors of each target in its unit."""
    from fedali_simulations.report.results import target_cells

    targets = results.targets
    if targets is None:
        return
    table = Table(
        title="of each target, at the same round", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for heading in ("method", "measure", "target", "MAE", "RMSE", "R2"):
        left = heading in ("method", "measure", "target")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for line in targets.to_dict("records"):
        if not math.isnan(line["mae"]):
            table.add_row(*target_cells(line))
    console.print(table)
