"""What ``fedali data`` shows: facts, guesses that are called so, and the first lines of a scenario."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from fedali.data.look.facts import ChannelFacts, ClientFacts, Look
from fedali_server.console import Console
from fedali_simulations.beginning import to_text
from fedali_simulations.looking import Parts, Seen
from fedali_simulations.report.first import first_columns, first_facts
from fedali_simulations.report.words import kind, many, number, pairs, shown, some, values

_WIDE = 1000  # columns: a table's own width is asked for as if there were room
_ROWS = 20  # of a table: more clients, classes or channels are summarised
_NAME = 24  # columns


def print_seen(seen: Seen, console: Console) -> None:
    """What was found, or a first look at what was refused; then the first lines of a scenario."""
    if seen.first is not None:
        rows = many(seen.first.rows, "row")
        some_rows = f"its {rows}" if seen.first.all else f"its first {rows}"
        _title(console, seen.source, f"cannot be read as it is. In {some_rows}:")
        console.print(first_columns(seen.first, console))
        console.print()
        console.print(_grid(first_facts(seen.first, seen.reading), console))
    elif seen.look is not None and seen.parts is not None:
        _title(console, seen.source, headline(seen.look))
        _print_look(seen, seen.look, seen.parts, console)
    _print_beginning(seen, console)


def _title(console: Console, source: str, what: str) -> None:
    console.print(Text.assemble((console.text(source), "bold"), ": ", console.text(what)))
    console.print()


def headline(look: Look) -> str:
    """A data set in a line."""
    sizes = (look.samples, kind(look.shape)), (len(look.clients), "client"), (len(look.classes), "class")
    return ", ".join(many(count, word) for count, word in sizes)


def _print_look(seen: Seen, look: Look, parts: Parts, console: Console) -> None:
    natural = parts.kind == "natural" or not parts.clients
    clients = look.clients if natural else parts.clients
    if not natural:
        console.print(shown(console, f"clients after the partition {parts.kind!r}:"))
    for table in _people(clients, [one.name for one in look.classes], kind(look.shape), console):
        console.print(table)
        console.print()
    console.print(_channels(look.channels, console))
    console.print()
    console.print(_grid(pairs(look, seen.reading, parts), console))


def _print_beginning(seen: Seen, console: Console) -> None:
    if seen.first is not None and seen.first.refusal not in ("", seen.refusal):
        yet = "the likeliest settings do not read it yet: " if seen.beginning is not None else ""
        console.print()
        console.print(shown(console, f"guess: {yet}{seen.first.refusal}"))
    if seen.beginning is None:
        return
    text = to_text(seen.beginning, ascii_alone=not console.encoding.lower().startswith("utf"))
    console.print()
    if not text:
        console.print(
            "Its path or one of its names is no Unicode text: rename it, so that a scenario can name it."
        )
        return
    console.print(shown(console, f"{_introduced(seen)}; for a file my_study.toml:"))
    console.print()
    console.say(text)
    console.print()
    console.print("Then: fedali data my_study.toml, fedali simulate my_study.toml")


def _introduced(seen: Seen) -> str:
    """What the lines of a scenario are."""
    if seen.first is not None and seen.first.refusal:
        return "guess: a beginning"
    if seen.guessed is None:
        alone = seen.look is not None and len(seen.look.clients) == 1
        return "guess: a scenario that divides its one client" if alone else "A scenario that reads it"
    why = "this reads it" if seen.first is not None else "shorter windows, so that each client has enough"
    return f"guess: {why} ({headline(seen.guessed)})"


def _people(
    clients: Sequence[ClientFacts], classes: Sequence[str], word: str, console: Console
) -> list[Table | Text]:
    """Samples of each client and class: in one table where that fits, else in two, of many clients in a few lines."""
    if len(clients) <= _ROWS:
        table = _table("client", f"{word}s", *classes)
        for one in clients:
            table.add_row(one.name, number(one.samples), *(number(n) if n else "–" for n in one.counts))
        columns = list(zip(*(one.counts for one in clients), strict=True))
        table.add_row(
            "all",
            number(sum(one.samples for one in clients)),
            *(number(sum(c)) for c in columns),
            style="bold",
        )
        if _fits(table, console):
            return [table]
        table = _table("client", f"{word}s", left=("lacks",))
        for one in clients:
            lacks = [name for name, n in zip(classes, one.counts, strict=True) if not n]
            table.add_row(one.name, number(one.samples), some(lacks) or "–")
        return [table, _classes(clients, classes, word)]
    ordered = sorted(clients, key=lambda one: one.samples)
    fewest, middle, most = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    lacking = [one.name for one in clients if 0 in one.counts]
    sizes = f"{number(fewest.samples)} {word}s ({fewest.name}) to {number(most.samples)} ({most.name}), median {number(middle.samples)}"
    if fewest.samples == most.samples:
        sizes = f"{number(most.samples)} {word}s each"
    lines = [f"{many(len(clients), 'client')}: {sizes}"]
    if lacking:
        lines.append(f"{number(len(lacking))} of them lack a class: {some(lacking)}")
    return [shown(console, "\n".join(lines)), _classes(clients, classes, word)]


def _classes(clients: Sequence[ClientFacts], classes: Sequence[str], word: str) -> Table:
    table = _table("class", f"{word}s", left=("clients without it",))
    for k, name in enumerate(classes[:_ROWS]):
        without = [one.name for one in clients if not one.counts[k]]
        of = f"{number(len(without))}: " if len(without) > 1 else ""
        table.add_row(
            name, number(sum(one.counts[k] for one in clients)), f"{of}{some(without)}" if without else "–"
        )
    if len(classes) > _ROWS:
        table.add_row(f"and {len(classes) - _ROWS} more")
    return table


def _channels(channels: Sequence[ChannelFacts], console: Console) -> Table:
    """Values of each channel; of many, of the first ones, the constant ones, and of all together."""
    constant = [one for one in channels if one.constant]
    rows = list(channels)
    if len(channels) > _ROWS:
        begin = channels[: _ROWS // 2]
        rows = [*begin, *(one for one in constant if one not in begin)][:_ROWS]
    for headings in (("min", "mean", "max", "std"), ("min", "max")):
        table = _table("channel", *headings, left=("",) if constant else ())
        for one in rows:
            numbers = dict(zip(("min", "mean", "max", "std"), values(one), strict=True))
            row = [one.name, *map(numbers.get, headings), "constant" if one.constant else ""]
            table.add_row(*row[: len(table.columns)])
        if len(channels) > len(rows):
            low, high = min(one.low for one in channels), max(one.high for one in channels)
            ends = {"min": f"{low:.4g}", "max": f"{high:.4g}"}
            more = f"{len(constant)} constant" if constant else ""
            row = [f"all {len(channels)}", *(ends.get(name, "") for name in headings), more]
            table.add_row(*row[: len(table.columns)], style="bold")
        if _fits(table, console):
            break
    return table


def _table(first: str, *right: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold", max_width=_NAME)
    for heading in right:
        table.add_column(heading, justify="right", overflow="fold")
    for heading in left:
        table.add_column(heading, overflow="fold")
    return table


def _fits(table: Table, console: Console) -> bool:
    wide = console.options.update(width=_WIDE)
    return console.measure(table, options=wide).maximum <= console.width


def _grid(rows: Sequence[tuple[str, str]], console: Console) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, shown(console, text))
    return table
