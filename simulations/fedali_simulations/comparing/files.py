"""A comparison as files: CSV and Parquet for programs, LaTeX and Markdown for papers, JSON for both."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fedali.support.files import write_text
from fedali_simulations.comparing import numbers
from fedali_simulations.comparing.comparison import Comparison
from fedali_simulations.comparing.measures import WORST, Measure
from fedali_simulations.report.tablefile import write_table

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    numbers.NONE: "--",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write ``compare.csv``, ``.parquet``, ``.tex``, ``.md`` and ``.json`` into ``folder``."""
    rows = comparison.rows
    write_text(folder / "compare.csv", rows.to_csv(index=False))
    write_table(
        folder / "compare.parquet",
        {
            str(name): [int(v) for v in column] if column.dtype == bool else column.tolist()
            for name, column in rows.items()
        },
    )
    write_text(folder / "compare.tex", to_latex(comparison))
    write_text(folder / "compare.md", to_markdown(comparison))
    write_text(folder / "compare.json", json.dumps(comparison.to_dict(), indent=1))


def to_markdown(comparison: Comparison) -> str:
    """Two tables for each accuracy, one for the costs, and what the numbers mean."""
    lines = [f"{numbers.heading(comparison)}.", ""]
    for measure in comparison.accuracies:
        head = [
            numbers.title_of(comparison, measure.name),
            "mean ± 95 %",
            "rank",
            "difference ± 95 %",
            "gain",
            "p clients",
            "p seeds",
        ]
        lines += [*_markdown(head, _tested(comparison, measure)), ""]
    for group in comparison.groups:
        lines += [*_markdown(["method", *map(_title, group)], _others(comparison, group)), ""]
    return "\n".join([*lines, *(f"{line}  " for line in numbers.explained(comparison))]) + "\n"


def to_latex(comparison: Comparison) -> str:
    """The same tables for LaTeX with the package booktabs; the best mean of each accuracy is bold."""
    parts = [f"% {line}" for line in (numbers.heading(comparison), *numbers.explained(comparison))]
    head = ["mean", "rank", "difference", "gain", "$p$ clients", "$p$ seeds"]
    for measure in comparison.accuracies:
        parts += [
            "",
            *_latex(
                [_escape(numbers.title_of(comparison, measure.name)), *head],
                _tested(comparison, measure),
                _best(comparison, measure),
            ),
        ]
    for group in comparison.groups:
        titles = ["method", *(_escape(_title(measure)) for measure in group)]
        parts += ["", *_latex(titles, _others(comparison, group))]
    return "\n".join(parts) + "\n"


def _tested(comparison: Comparison, measure: Measure) -> list[list[str]]:
    """A row for each method: mean, rank, difference, gain and p."""
    rows = [(method, comparison.row(measure.name, method)) for method in comparison.methods]
    return [
        [
            method,
            numbers.mean(row),
            numbers.rank(row),
            numbers.difference(row) + numbers.mark(row),
            numbers.gains(row),
            numbers.p_value(row["p_wilcoxon_holm"]),
            numbers.p_value(row["p_t_holm"]),
        ]
        for method, row in rows
    ]


def _others(comparison: Comparison, measures: Sequence[Measure]) -> list[list[str]]:
    """A row for each method: the mean of each measure."""
    found = []
    for method in comparison.methods:
        rows = [comparison.row(measure.name, method) for measure in measures]
        found.append([method, *(numbers.other(row, comparison, interval=True) for row in rows)])
    return found


def _title(measure: Measure) -> str:
    unit = numbers.unit_of({"unit": measure.unit})
    name = measure.name.replace(WORST, "worst 10 %")
    return f"{name}, {unit}" if unit and unit not in name else name


def _best(comparison: Comparison, measure: Measure) -> set[str]:
    """The methods of the best mean, as it is shown."""
    rows = {method: comparison.row(measure.name, method) for method in comparison.methods}
    shown = {method: float(numbers.number(row, "mean")) for method, row in rows.items() if row["seeds"]}
    best = max(shown.values()) if measure.better == "more" else min(shown.values())
    return {method for method, value in shown.items() if value == best}


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table]


def _latex(
    head: Sequence[str], rows: Sequence[Sequence[str]], bold: set[str] | frozenset[str] = frozenset()
) -> list[str]:
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        cells = [_escape(row[0]), *(re.sub("^-", "$-$", _escape(cell)) for cell in row[1:])]
        if row[0] in bold:
            cells[1] = rf"\textbf{{{cells[1]}}}"
        lines.append(" & ".join(cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(letter, letter) for letter in text)
