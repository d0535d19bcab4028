"""What ``fedali data`` found, in words; ``guess:`` stands before each guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from fedali.data.look.facts import ChannelFacts, Look
from fedali.data.look.files import SeenFile
from fedali.data.look.first import FirstLook
from fedali.data.look.times import UNITS, Times
from fedali_server.console import Console
from fedali_simulations.looking import Parts

_SOME = 5  # names in a list
_AXES = {1: "features", 2: "time x channels", 3: "channels x height x width"}
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", " ": "space", "|": "|"}


def kind(shape: Sequence[int]) -> str:
    """What a sample of this shape is called."""
    return {1: "vector", 2: "window", 3: "image"}[len(shape)]


def number(count: int) -> str:
    """With commas between thousands."""
    return f"{count:,}"


def many(count: int, word: str) -> str:
    """How many of something.

    >>> many(1, "class"), many(1200, "class"), many(0, "row")
    ('1 class', '1,200 classes', '0 rows')
    """
    return f"{number(count)} {word}{'' if count == 1 else 'es' if word.endswith('s') else 's'}"


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {number(len(names) - _SOME)} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more


def values(channel: ChannelFacts) -> list[str]:
    """Minimum, mean, maximum and standard deviation with as many decimals as tell.

    >>> values(ChannelFacts("x", -1.7432, 0.024, 12.5, 0.7624, False))
    ['-1.74', '0.02', '12.50', '0.76']
    """
    found = (channel.low, channel.mean, channel.high, channel.deviation)
    decimals = 2 - round(math.log10(channel.deviation)) if channel.deviation > 0 else 9
    if channel.constant or decimals > 5:
        return [f"{value:.4g}" for value in found]
    return [f"{value:.{max(decimals, 0)}f}" for value in found]


def shown(console: Console, text: str) -> Text:
    """``text`` as the console shows it, its guesses in a colour of their own."""
    found = Text(console.text(text))
    found.highlight_regex(r"\bguess:", "yellow")
    return found


def span(seconds: float) -> str:
    """A duration for people.

    >>> span(0.02), span(2.56), span(3600), span(0.0005)
    ('20 ms', '2.56 s', '60 min', '0.5 ms')
    """
    for least, scale, unit in ((7200, 3600, "h"), (120, 60, "min"), (1, 1, "s"), (1e-4, 1e-3, "ms")):
        if seconds >= least:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def pairs(look: Look, reading: Mapping[str, Any], parts: Parts) -> list[tuple[str, str]]:
    """What was found, as pairs of a word and a text; ``reading`` are the settings that somebody made."""
    rows = [("samples", f"{look.dtype} {list(look.shape)}: {_AXES[len(look.shape)]}")]
    if look.files:
        rows += _files(look, reading)
    if look.rate is not None:
        rows.append(("rate", f"{look.rate:.4g} rows a second, as the data set is described"))
    rows += times_in_words(look)
    if look.length:
        rows += [("recordings", number(look.recordings)), ("windows", _windows(look))]
    rows += _under("notes", look.notes)
    if parts.refusal:
        return [*rows, ("split", f"refused: {parts.refusal}")]
    sizes = f"{number(parts.training)} for training, {number(parts.validation)} for validation, {number(parts.test)} for tests"
    return rows + _under("split", [sizes, *parts.notes])


def _under(name: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts below each other beside a name."""
    return [(name if not k else "", text) for k, text in enumerate(texts)]


def _files(look: Look, reading: Mapping[str, Any]) -> list[tuple[str, str]]:
    first = look.files[0]
    count = f"{many(len(look.files), 'file')}, " if len(look.files) > 1 else ""
    labels = " or ".join(dict.fromkeys(file.labels for file in look.files))
    if not look.rows:
        return [("labels", labels)]
    columns = ", ".join(role if role == name else f"{role} = {name}" for role, name in first.columns)
    return [
        ("read as", f"CSV, {count}{many(look.rows, 'row')}{found_out(look.files, reading)}"),
        ("columns", f"{columns}; {many(len(look.channels), 'channel')}"),
        ("labels", labels),
    ]


def found_out(files: Sequence[SeenFile | FirstLook], reading: Mapping[str, Any]) -> str:
    """What the files said of themselves, since no setting did."""
    facts = {
        "separator": [f"{_NAMES.get(f.separator, f.separator)} between columns" for f in files],
        "decimal": [f"decimal {'comma' if f.decimal == ',' else 'point'}" for f in files],
        "encoding": [f.encoding.upper().removesuffix("-SIG") for f in files],
        "header": ["" if f.header < 2 else f"header in line {f.header}" for f in files],
    }
    found = [" or ".join(dict.fromkeys(texts)) for name, texts in facts.items() if name not in reading]
    return "; found: " + ", ".join(filter(None, found)) if any(found) else ""


def times_in_words(look: Look) -> list[tuple[str, str]]:
    """Times, their intervals and gaps."""
    times = look.times
    if times is None:
        hint = "none, so that pauses cannot be seen; data.columns.time names a column of times"
        if any(role == "time" for file in look.files for role, _ in file.columns):
            hint = "all the same in each recording, so that pauses cannot be seen"
        return [("times", hint)] if look.rows else []
    words = f"{'dates' if times.certain else 'numbers'} in {' and '.join(map(repr, times.columns))}"
    if not times.unit:
        words += f"; of which unit is not known: {times.why}"
    elif not times.certain:
        words += f"; guess: {UNITS[times.unit]}, {times.why}"
    unit = span if times.unit else "{:.3g}".format
    rate = ""
    if times.rate is not None and times.slowest is not None and times.fastest is not None:
        slowest, fastest = f"{times.slowest:.3g}", f"{times.fastest:.3g}"
        each = f"{times.rate:.4g}" if times.steady else f"{slowest} to {fastest}, by recording,"
        rate = f"{'' if times.certain else 'guess: '}{each} rows a second; "
    low, high = unit(times.low), unit(times.high)
    pace = f"intervals of {unit(times.interval)}" + (f", 9 in 10 of {low} to {high}" if low != high else "")
    if times.equal:
        pace += f"; {many(times.equal, 'row')} with the time of the row before, as in packets"
    return [("times", words), ("rate", rate + pace), ("gaps", _gaps(times))]


def _gaps(times: Times) -> str:
    unit = span if times.unit else "{:.3g}".format
    longest = "the longest " if times.certain or not times.unit else "the longest, guess: "
    gaps = (
        "none"
        if not times.pauses
        else (f"{number(times.pauses)}, no window crosses one; {longest}{unit(times.longest_pause)}")
    )
    if times.holes:
        gaps += (
            f"; {many(times.holes, 'shorter hole')}, {longest}{unit(times.longest_hole)}: windows go across"
        )
    return gaps


def _windows(look: Look) -> str:
    text = f"{look.length} rows" + (f" every {look.stride}" if look.stride is not None else "")
    if look.rate is not None:
        text += f", {span(look.length / look.rate)}"
    if look.times is not None and look.times.rate is not None:
        text += f", {'' if look.times.certain else 'guess: '}{span(look.length / look.times.rate)}"
    text += f"; neighbours share {look.shared:.0%} of them" if look.shared else "; neighbours share no row"
    return text + (f"; {number(look.used)} of {many(look.rows, 'row')} are in one" if look.rows else "")
