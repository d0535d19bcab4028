"""The first look at a CSV that is refused, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from fedali.data.look.columns import ColumnFacts
from fedali.data.look.first import FirstLook
from fedali_server.console import Console
from fedali_simulations.report.words import found_out, many, shown

_FEW = 100  # different whole numbers, which may be names
_MANY = 20  # channels that are shown
_LONGEST = 20  # letters of an example


def first_columns(first: FirstLook, console: Console) -> Table:
    """Each column, what it holds, and what it is for."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("column", overflow="fold", max_width=24)
    table.add_column("holds", overflow="fold")
    table.add_column("is", overflow="fold")
    guessed = any(column.role for column in first.columns)
    plain = [c for c in first.columns if c.role == "channel" and not c.odd]
    spared = plain[_MANY:]
    for column in first.columns:
        if column in spared:
            continue
        role = column.role or "left out"
        table.add_row(
            column.name or "(no name)",
            _holds(column),
            shown(console, role if column.certain else f"guess: {role}" if guessed else ""),
        )
    if spared:
        table.add_row(f"and {many(len(spared), 'column')}", "numbers", shown(console, "guess: channels"))
    return table


def _holds(column: ColumnFacts) -> str:
    if column.holds == "nothing":
        return "nothing"
    names = column.role not in ("channel", "time") and column.distinct <= _FEW
    if column.numeric and not (column.holds == "whole numbers" and names):
        odd = f"; also {', '.join(map(repr, column.odd[:3]))}" if column.odd else ""
        rises = ", rising" if column.rises else ""
        form = ".0f" if column.holds == "whole numbers" else ".6g"
        return f"{column.holds}, {column.low:{form}} to {column.high:{form}}{rises}{odd}"
    examples = ", ".join(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in column.examples)
    more = ", …" if column.distinct > len(column.examples) else ""
    what = {"text": "word", "dates": "date"}.get(column.holds, "number")
    return f"{many(column.distinct, what)}: {examples}{more}"


def first_facts(first: FirstLook, reading: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the file was taken apart."""
    guessed: dict[str, Any] = {
        name: first.guess[name] for name in ("encoding", "separator") if name in first.guess
    }
    guesses = "".join(f"; guess: {name} {value!r}" for name, value in guessed.items())
    return [("read as", f"CSV{found_out([first], {**reading, **guessed})}{guesses}")]
