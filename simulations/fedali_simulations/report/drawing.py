"""How the pictures are drawn: sheets with a heading, colours and markers of methods, axes, numbers and names."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedali.support.files import atomic
from fedali.targets import Score

# Okabe and Ito's colours without yellow, and three more: at least 15 apart (CIE Lab) for every pair and every kind of
# colour blindness (Machado 2009), and markers differ too.
KNOWN = {
    "fedali": "#0072B2",
    "fedali-head": "#56B4E9",
    "fedali-paper": "#332288",
    "l2only": "#CC79A7",
    "fedavg": "#D55E00",
    "fedper": "#009E73",
    "local": "#666666",
}
PALETTE = [*KNOWN.values(), "#E69F00", "#000000", "#7B1E3A"]
MARKERS = "osD^vPX<>h"
DARK, FAINT, GRID = "#222222", "#666666", "#E3E3E3"
DPI = 150
EDGE, LINE = 0.15, 0.2  # margin and height of a line of small text, in inches


class Sheet:
    """A figure with a heading: title, note, and room below them.

    Args:
        width: inches.
        height: inches, of what is below the heading.
        title: what was run.
        what: is shown.
        note: how to read it.
        room: inches left free between heading and drawing, for a legend.
    """

    def __init__(
        self, width: float, height: float, title: str, what: str, note: str, room: float = 0
    ) -> None:
        letters = int(width / 0.125)
        heading = wrap(f"{shorten(title, 2 * letters)}: {what}", letters)
        notes = wrap(note, int((width - 2 * EDGE) / 0.072))
        top = EDGE + 0.27 * len(heading)
        self.legend_top = top + LINE * len(notes) + 0.1
        height += self.legend_top + room
        self.figure = Figure((width, height), facecolor="white")
        body = (0, 0, 1, 1 - (self.legend_top + room) / height)
        self.figure.set_layout_engine(
            "constrained", rect=body, w_pad=EDGE, h_pad=0.08, wspace=0.02, hspace=0.01
        )
        self.place(top=EDGE, text="\n".join(map(plain, heading)), fontsize=14, color=DARK)
        self.place(top=top, text="\n".join(map(plain, notes)), fontsize=9.5, color=FAINT)

    def place(self, top: float, text: str, **style: Any) -> None:
        """Text at the left edge, ``top`` inches from the top."""
        width, height = self.figure.get_size_inches()
        self.figure.text(EDGE / width, 1 - top / height, text, va="top", linespacing=1.35, **style)


def method_legend(sheet: Sheet, methods: Sequence[str]) -> None:
    """Colours and markers of the methods, between heading and drawing."""
    width, height = sheet.figure.get_size_inches()
    looks = styles(methods)
    handles = [
        Line2D([], [], color=looks[m][0], marker=looks[m][1], linewidth=1.8, markersize=6) for m in methods
    ]
    legend = sheet.figure.legend(
        handles,
        [f"method {place}" for place in range(len(methods))],
        loc="upper left",
        bbox_to_anchor=(EDGE / width, 1 - sheet.legend_top / height),
        ncols=legend_columns(methods, width),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.6,
        fontsize=10.5,
        labelcolor=DARK,
    )
    for text, method in zip(legend.get_texts(), methods, strict=True):
        text.set_text(short(method))  # not at once: a legend drops labels that begin with an underscore


def legend_columns(methods: Sequence[str], width: float) -> int:
    """How many names fit side by side on ``width`` inches."""
    longest = max(len(short(method)) for method in methods)
    return max(1, min(len(methods), int((width - 2 * EDGE) / (0.75 + 0.095 * longest))))


def styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: always the same for known ones, the rest share what is free.

    >>> styles(["mine", "fedavg"])
    {'mine': ('#E69F00', '<'), 'fedavg': ('#D55E00', 'v')}
    """
    methods = list(methods)
    taken = [KNOWN[method] for method in methods if method in KNOWN]
    free = [colour for colour in PALETTE[len(KNOWN) :] + PALETTE[: len(KNOWN)] if colour not in taken]
    others = [method for method in methods if method not in KNOWN]
    pool = free or PALETTE
    colours = {method: pool[place % len(pool)] for place, method in enumerate(others)} | KNOWN
    return {m: (colours[m], MARKERS[PALETTE.index(colours[m])]) for m in methods}


def style(axes: Axes, *, grid: bool = True, x: str = "", y: str = "") -> None:
    """A white panel with a light grid and two thin lines at most; no colour comes from the user's matplotlibrc."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, labelcolor=DARK, color=FAINT, length=3)
    for side, spine in axes.spines.items():
        spine.set(visible=grid and side in ("left", "bottom"), color=FAINT, linewidth=0.8)
    axes.grid(visible=False)
    if grid:
        axes.grid(visible=True, color=GRID, linewidth=0.8, linestyle="-")
    axes.set_xlabel(x, color=DARK, fontsize=10)
    axes.set_ylabel(y, color=DARK, fontsize=10)


def style_key(key: Colorbar, name: str) -> None:
    """A colour key without a frame, called ``name``."""
    key.outline.set_visible(False)
    key.set_label(name, color=DARK, fontsize=10)
    key.ax.tick_params(labelsize=9, labelcolor=DARK, color=FAINT)


def panel_title(axes: Axes, title: str, below: str) -> None:
    """A panel's title, and a smaller line below it."""
    axes.set_title(title, loc="left", fontsize=11, color=DARK, pad=20 if below else 6)
    if below:
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "in_layout": False}
        axes.text(0, 1.02, below, fontsize=9, color=FAINT, **place)


def say(axes: Axes, text: str) -> None:
    """A word in the middle of a panel that has nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9.5, color=FAINT)


def limits(values: Iterable[float]) -> tuple[float, float]:
    """Tens of percent around the values, within 0..100; 0 and 100 for no values.

    >>> limits([63.2, 91.0])
    (60, 100)
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return 0, 100
    low, high = 10 * math.floor(min(known) / 10), 10 * math.ceil(max(known) / 10)
    return (low, high) if high > low else (max(0, low - 10), min(100, high + 10))


def percent(axes: Axes, axis: str, low: float, high: float) -> None:
    """Set axis ``x`` or ``y`` to ``low``..``high`` with a margin that cuts no marker at 100 %, but no tick beyond."""
    margin = 0.04 * (high - low)
    step = next(s for s in (2, 5, 10, 20) if (high - low) / s <= 6)
    ticks = np.arange(step * math.ceil(low / step), high + 1, step)
    axes.set(**{f"{axis}ticks": ticks, f"{axis}lim": (low - margin, high + margin)})


def around(values: Iterable[float]) -> tuple[float, float]:
    """The least and the most of some numbers of any size, apart; 0 and 1 for none.

    >>> around([0.5, 0.75]), around([])
    ((0.5, 0.75), (0.0, 1.0))
    """
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def axis_name(name: str, score: Score) -> str:
    """What an axis of a score is called."""
    return f"{name} (%)" if score.share else name


def shown(values: Any, score: Score) -> Any:
    """Numbers of a score as they are drawn."""
    return 100 * values if score.share else values


def reach(values: Iterable[float], score: Score) -> tuple[float, float]:
    """``limits``, or, of what is no share, ``around``."""
    return limits(values) if score.share else around(values)


def scale(axes: Axes, axis: str, low: float, high: float, *, share: bool) -> None:
    """``percent``, or, of what is no ``share``, the same with matplotlib's own ticks."""
    if share:
        percent(axes, axis, low, high)
        return
    margin = 0.06 * (high - low)
    axes.set(**{f"{axis}lim": (low - margin, high + margin)})


def wrap(text: str, most: int) -> list[str]:
    """As few lines of at most ``most`` characters as will do, about equally long.

    >>> wrap("no word left alone at the end", 25)
    ['no word left', 'alone at the end']
    """
    lines = len(textwrap.wrap(text, most))
    tries = (textwrap.wrap(text, width) for width in range(max(1, len(text) // max(1, lines)), most + 1))
    return next((found for found in tries if len(found) <= lines), textwrap.wrap(text, most))


def plain(text: str) -> str:
    """Text for matplotlib to show as it is: no mathematics between dollar signs."""
    return text.replace("$", r"\$")


def shorten(text: str, most: int = 32) -> str:
    """One line of at most ``most`` characters, without its middle: both ends of a name tell it from others.

    >>> shorten("participant-000000017-left", 14)
    'parti…017-left'
    """
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    head = (most - 1) // 2 - 1
    return f"{text[:head]}…{text[head + 1 - most :]}"


def short(text: str, most: int = 32) -> str:
    """A name fit to be drawn: shortened, without markup."""
    return plain(shorten(text, most))


def compact(count: int) -> str:
    """A count in at most four characters.

    >>> [compact(n) for n in (7, 9999, 12345, 1234567)]
    ['7', '9999', '12k', '1.2M']
    """
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10_000 and count >= size:
            return f"{count / size:.0f}{unit}" if count >= 10 * size else f"{count / size:.1f}{unit}"
    return str(count)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, atomically."""
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in a script the font lacks
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
