"""A comparison in the terminal: a block for each accuracy, then what else there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from fedali_server.console import Console
from fedali_simulations.comparing import numbers
from fedali_simulations.comparing.comparison import Comparison
from fedali_simulations.comparing.measures import COST, GATE, TARGET, WORST, Measure

_WIDE = 1000  # columns: a table's own width is asked for as if there were room
_HEADINGS = ("mean\n± 95 %", "rank", "difference\n± 95 %", "gain", "p\nclients", "p\nseeds")
_LEAST = (0, 2, 4, 5)  # of these columns, in a narrow terminal


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The tables, what they mean, and where everything is."""
    console.print(numbers.heading(comparison), style="bold")
    console.print()
    for measure in comparison.accuracies:
        console.print(_block(comparison, measure, console))
        console.print()
    for table in _beside(comparison, console):
        console.print(table)
        console.print()
    for line in numbers.explained(comparison):
        console.print(line)


def _block(comparison: Comparison, measure: Measure, console: Console) -> Table:
    """One accuracy: each method, and its difference from the one that all are compared with."""
    for shown in (range(len(_HEADINGS)), _LEAST):
        table = _table(numbers.title_of(comparison, measure.name), console)
        for column in shown:
            table.add_column(_HEADINGS[column], justify="right", no_wrap=True)
        for method in comparison.methods:
            row = comparison.row(measure.name, method)
            cells = [
                numbers.mean(row),
                numbers.rank(row),
                numbers.difference(row) + (numbers.mark(row) or " "),
                numbers.gains(row),
                numbers.p_value(row["p_wilcoxon_holm"]),
                numbers.p_value(row["p_t_holm"]),
            ]
            table.add_row(
                method,
                *(cells[column] for column in shown),
                style="bold" if method == comparison.against else None,
            )
        if _fits(table, console):
            break
    return table


def _beside(comparison: Comparison, console: Console) -> list[Table]:
    """The other numbers, a column each; those about one accuracy stay together, in as few tables as the width allows."""
    groups = comparison.groups
    tables = []
    while groups:
        count = len(groups)
        while count > 1 and not _fits(_columns(comparison, groups[:count], console), console):
            count -= 1
        tables.append(_columns(comparison, groups[:count], console))
        groups = groups[count:]
    return tables


def _columns(comparison: Comparison, groups: Sequence[Sequence[Measure]], console: Console) -> Table:
    table, measures = _table("", console), [measure for group in groups for measure in group]
    for measure in measures:
        table.add_column(_heading(measure), justify="right", no_wrap=True)
    for method in comparison.methods:
        rows = [comparison.row(measure.name, method) for measure in measures]
        cells = [numbers.other(row, comparison) + (" " if not numbers.mark(row) else "") for row in rows]
        table.add_row(method, *cells, style="bold" if method == comparison.against else None)
    return table


def _heading(measure: Measure) -> str:
    """A name in a narrow column, a word a line."""
    about = [word if len(word) <= 7 else f"{word[:4]}." for word in measure.about.split()]
    words = "worst 10_%" if measure.name.endswith(WORST) else measure.name.removeprefix(measure.about).strip()
    lines = [
        *about,
        *words.replace("-", " ").split(),
        numbers.unit_of({"unit": measure.unit})
        if measure.about in (COST, GATE) or measure.about.startswith(f"{TARGET} ")
        else "",
    ]
    return "\n".join(line.replace("_", " ") for line in lines if line)


def _table(heading: str, console: Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(heading, overflow="fold", max_width=24 if console.width >= 80 else 16)
    return table


def _fits(table: Table, console: Console) -> bool:
    wide: Any = console.options.update(width=_WIDE)
    return console.measure(table, options=wide).maximum <= console.width
