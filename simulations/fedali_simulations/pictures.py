"""Pictures of a study: accuracy by round, the clients one by one, and what each client holds.

Each is drawn on a ``Figure`` of its own, without pyplot; sizes are in inches, so that text never shrinks with data.
"""

from __future__ import annotations

import itertools
import math
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedali.files import atomic

Counts = npt.NDArray[np.integer[Any]]

# Okabe and Ito's colours without yellow, and three more: at least 15 apart (CIE Lab) for every pair and every kind of
# colour blindness (Machado 2009), and markers differ too.
_KNOWN = {
    "fedali": "#0072B2",
    "fedali-head": "#56B4E9",
    "fedali-kmeans": "#332288",
    "l2only": "#CC79A7",
    "fedavg": "#D55E00",
    "fedper": "#009E73",
    "local": "#666666",
}
_PALETTE = [*_KNOWN.values(), "#E69F00", "#000000", "#7B1E3A"]
_MARKERS = "osD^vPX<>h"
_INK, _FAINT, _GRID = "#222222", "#666666", "#E3E3E3"
_BLUES = LinearSegmentedColormap.from_list(
    "holdings", ["#FFFFFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B"]
)
_CLASSES = LinearSegmentedColormap.from_list(  # of viridis, without its palest end
    "classes", ["#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#A0DA39", "#E3E04A"]
)
_DPI = 150
_EDGE, _LINE = 0.15, 0.2  # margin and height of a line of small text, in inches
_PAIR = ["generalisation", "personalisation"]
_MATRIX = 60  # the most clients that get a column of the matrix


class _Panel(NamedTuple):
    measure: str
    title: str
    tested: str


_PANELS = (
    _Panel("personalisation", "Personalisation", "clients' models, own test data"),
    _Panel("generalisation", "Generalisation", "clients' models, everyone's test data"),
    _Panel("global", "Global model", "server's model, everyone's test data"),
)


def draw_all(
    folder: Path,
    *,
    clients: pd.DataFrame,
    selected: Mapping[tuple[str, int], int],
    counts: Counts,
    client_names: Sequence[str],
    class_names: Sequence[str],
    title: str,
) -> list[Path]:
    """Write ``curves.png``, ``clients.png`` and ``holdings.png`` into ``folder``; their paths."""
    paths = [folder / name for name in ("curves.png", "clients.png", "holdings.png")]
    draw_curves(clients, paths[0], title=title)
    draw_clients(clients, selected, paths[1], title=title)
    draw_holdings(counts, client_names, class_names, paths[2], title=title)
    return paths


def draw_curves(clients: pd.DataFrame, path: Path, *, title: str) -> None:
    """Accuracy by round of each method: personalisation, generalisation and the global model side by side.

    Lines are means over clients, then over seeds, as in the table: ``global`` weighs clients by ``test_samples`` where
    that column is there. Bands hold the middle 80 % of the clients, all seeds together.

    Args:
        clients: a row for each method, seed, round and client; accuracies 0..1, NaN or no column where not evaluated.
        path: of the PNG.
        title: what was run.
    """
    _save(_curves_figure(clients, title), path)


def draw_clients(
    clients: pd.DataFrame, selected: Mapping[tuple[str, int], int], path: Path, *, title: str
) -> None:
    """A dot for each client, generalisation against personalisation at the selected round, a panel for each method.

    A dot is the mean over seeds; the cross is the method's mean, as in the table.

    Args:
        clients: a row for each method, seed, round and client; accuracies 0..1.
        selected: (method, seed) -> round.
        path: of the PNG.
        title: what was run.
    """
    _save(_clients_figure(clients, selected, title), path)


def draw_holdings(
    counts: Counts, client_names: Sequence[str], class_names: Sequence[str], path: Path, *, title: str
) -> None:
    """How many samples of each class each client holds: a matrix up to 60 clients, beyond that bars sorted by size.

    Args:
        counts: samples [clients, classes].
        client_names: [clients].
        class_names: [classes].
        path: of the PNG.
        title: what was run.
    """
    _save(_holdings_figure(counts, client_names, class_names, title), path)


# Accuracy by round


def _curves_figure(clients: pd.DataFrame, title: str) -> Figure:
    methods, width = list(dict.fromkeys(clients["method"])), 12.5
    room = 0.24 * math.ceil(len(methods) / _legend_columns(methods, width))
    sheet = _Sheet(width, 3.55, title, "accuracy by round", _what_curves_show(clients), room)
    _method_legend(sheet, methods)
    panels = sheet.figure.subplots(1, 3, sharey=True)
    reach: list[float] = []
    evaluated = False  # generalisation, and with it the global models there are
    for axes, panel in zip(panels, _PANELS, strict=True):
        _style(axes, x="round", y="accuracy (%)" * (panel is _PANELS[0]))
        _panel_title(axes, panel.title, panel.tested)
        means, bands = _by_round(clients, panel.measure)
        if len(means):
            evaluated = panel.measure == "generalisation"
            reach += [*means, *bands["low"], *bands["high"]]
            _draw_rounds(axes, methods, means, bands, int(clients["round"].max()))
        else:
            _say(axes, "no method here\nhas a global model" if evaluated else "not evaluated")
            axes.set_xticks([])
    _percent(panels[0], "y", *_limits(reach))
    return sheet.figure


def _what_curves_show(clients: pd.DataFrame) -> str:
    people, seeds = clients["client"].nunique(), clients["seed"].nunique()
    over = f"{people} clients" + (f" and {seeds} seeds" if seeds > 1 else "")
    mark, span = ("Line", "Band") if clients["round"].nunique() > 1 else ("Marker", "Bar")
    text = f"{mark}: mean over {over}. {span}: the middle 80 % of clients (10th to 90th percentile)."
    having = set(clients.loc[clients["global"].notna(), "method"]) if "global" in clients else set()
    without = [_shorten(method) for method in dict.fromkeys(clients["method"]) if method not in having]
    return f"{text} Without a global model: {', '.join(without)}." if having and without else text


def _by_round(clients: pd.DataFrame, measure: str) -> tuple[pd.Series[float], pd.DataFrame]:
    """Means in percent by (method, round), and the same of the 10th (``low``) and 90th (``high``) percentile."""
    if measure not in clients:
        clients = clients.assign(**{measure: math.nan})
    known = clients.dropna(subset=[measure])
    weighted = measure == "global" and "test_samples" in known
    weight = known["test_samples"] if weighted else pd.Series(1.0, known.index)
    parts = known[["method", "seed", "round"]].assign(value=100 * known[measure] * weight, weight=weight)
    sums = parts.groupby(["method", "seed", "round"])[["value", "weight"]].sum()
    means = (sums["value"] / sums["weight"]).groupby(["method", "round"]).mean().dropna()
    pooled = (100 * known[measure]).groupby([known["method"], known["round"]])
    return means, pd.DataFrame({"low": pooled.quantile(0.1), "high": pooled.quantile(0.9)}).loc[means.index]


def _draw_rounds(
    axes: Axes, methods: Sequence[str], means: pd.Series[float], bands: pd.DataFrame, last: int
) -> None:
    """Lines and bands over rounds 1 to ``last``; of a single round markers and bars, side by side."""
    present = [method for method in methods if method in means.index.get_level_values("method")]
    rounds, styles = sorted(set(means.index.get_level_values("round"))), _styles(methods)
    for place, method in enumerate(present):
        mean = means.loc[[method]].droplevel("method")
        low, high = bands.loc[method].to_numpy().T
        colour, marker = styles[method]
        above = 4 - place / 100  # the first method on top
        x = mean.index.to_numpy(float)
        line: dict[str, Any] = {"color": colour, "marker": marker, "markeredgewidth": 0, "zorder": above}
        if len(rounds) == 1:
            x = x + 0.8 * ((place + 0.5) / len(present) - 0.5)
            axes.vlines(x, low, high, color=colour, alpha=0.3, linewidth=6, zorder=above - 1)
            axes.plot(x, mean, linestyle="none", markersize=7, gid=method, **line)
        else:
            opacity = 0.15 if len(present) < 4 else 0.09
            axes.fill_between(x, low, high, color=colour, alpha=opacity, linewidth=0, zorder=2)
            every = max(1, len(x) // 8)
            axes.plot(
                x, mean, linewidth=1.8, markersize=4.5, markevery=(place % every, every), gid=method, **line
            )
    if len(rounds) == 1:
        axes.set_xlim(rounds[0] - 0.5, rounds[0] + 0.5)
        axes.set_xticks(rounds)
        axes.grid(visible=False, axis="x")
    else:
        axes.set_xlim(1 - 0.03 * (last - 1), last + 0.03 * (last - 1))
        axes.set_xticks(_round_ticks(last))


def _round_ticks(last: int) -> list[int]:
    """At most eight numbers from 1 to ``last``.

    >>> _round_ticks(20)
    [1, 5, 10, 15, 20]
    """
    steps = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    step = next(step for step in steps if last / step <= 7)
    return [1] * (step > 2) + list(range(step, last + 1, step))


# Clients one by one


def _clients_figure(clients: pd.DataFrame, selected: Mapping[tuple[str, int], int], title: str) -> Figure:
    methods, seeds = list(dict.fromkeys(clients["method"])), clients["seed"].nunique()
    columns = len(methods) if len(methods) < 5 else max(3, min(5, math.ceil(len(methods) / 2)))
    rows = math.ceil(len(methods) / columns)
    side = {1: 4.8, 2: 4.2, 3: 3.3, 4: 3.1}.get(columns, 2.8)
    note = (
        f"Dot: a client{f', mean over {seeds} seeds' if seeds > 1 else ''}, at the round selected on validation data. "
        "Cross: the method's mean. Above the dashed line: better on own data than on everyone's."
    )
    what = "personalisation and generalisation of each client"
    sheet = _Sheet(max(side * columns + 0.9, 7.5), (side + 0.65) * rows + 0.4, title, what, note)
    panels = sheet.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    chosen = _at_selected(clients, selected)
    limits = _limits(100 * chosen[_PAIR].dropna().to_numpy().ravel())
    styles = _styles(methods)
    for place, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        lowest = place + columns >= len(methods)
        x_name, y_name = "generalisation (%)" * lowest, "personalisation (%)" * (place % columns == 0)
        _style(axes, x=x_name, y=y_name)
        axes.xaxis.set_tick_params(labelbottom=lowest)
        axes.set_box_aspect(1)
        axes.plot([-20, 120], [-20, 120], linestyle=(0, (4, 3)), color="#999999", linewidth=1, zorder=1)
        name = _short(method, int(side / 0.1))
        _draw_dots(axes, chosen[chosen["method"] == method], styles[method][0], name)
        _percent(axes, "x", *limits)
        _percent(axes, "y", *limits)
    for axes in panels[len(methods) :]:
        axes.remove()
    return sheet.figure


def _at_selected(clients: pd.DataFrame, selected: Mapping[tuple[str, int], int]) -> pd.DataFrame:
    """Rows of the selected rounds, with a column of generalisation in any case."""
    if "generalisation" not in clients:
        clients = clients.assign(generalisation=math.nan)
    keys = zip(clients["method"], clients["seed"], strict=True)
    rounds = np.array([selected[method, int(seed)] for method, seed in keys], int)
    chosen: pd.DataFrame = clients.loc[clients["round"].to_numpy() == rounds]
    return chosen


def _draw_dots(axes: Axes, rows: pd.DataFrame, colour: str, title: str) -> None:
    dots = 100 * rows.dropna(subset=_PAIR).groupby("client", sort=False)[_PAIR].mean()
    if not len(dots):
        _panel_title(axes, title, "")
        _say(axes, "not evaluated")
        return
    x, y = (100 * rows.groupby("seed")[_PAIR].mean().mean()).to_numpy()
    _panel_title(axes, title, f"mean {y:.1f} % own, {x:.1f} % everyone's")
    crowd = min(1.0, math.sqrt(20 / len(dots)))
    dot: dict[str, Any] = {"s": 9 + 27 * crowd, "alpha": 0.3 + 0.4 * crowd, "color": colour, "linewidths": 0}
    axes.scatter(dots["generalisation"], dots["personalisation"], zorder=3, **dot)
    for size, width, ink in ((9.5, 4, "white"), (8, 1.9, _INK)):
        axes.plot(x, y, marker="x", markersize=size, markeredgewidth=width, color=ink, zorder=4)


# What clients hold


def _holdings_figure(
    counts: Counts, client_names: Sequence[str], class_names: Sequence[str], title: str
) -> Figure:
    counts = np.asarray(counts)
    if len(counts) <= _MATRIX:
        return _matrix_figure(counts, client_names, class_names, title)
    return _stack_figure(counts, class_names, title)


def _matrix_figure(
    counts: Counts, client_names: Sequence[str], class_names: Sequence[str], title: str
) -> Figure:
    """A column for each client, a row for each class, and above each column its sum."""
    clients, classes = counts.shape
    columns, rows = [_short(name, 14) for name in client_names], [_short(name, 20) for name in class_names]
    longest = max(map(len, columns))
    numbers = clients <= 30
    cell = min(1.3, max(0.4 if numbers else 0.2, 8.5 / clients)), 0.34 if classes <= 20 else 0.22
    upright = 0.085 * longest < cell[0]
    width = max(cell[0] * clients + 1.2 + 0.08 * max(map(len, rows)), 7.5)
    below = 0.45 if upright else 0.45 + 0.075 * longest
    note = "Cells: samples of a class. Bars: all samples of a client." + (" Blank: none." if numbers else "")
    height = cell[1] * classes
    sheet = _Sheet(width, height + 1.0 + below, title, "samples that each client holds", note)
    bars, axes = sheet.figure.subplots(2, 1, sharex=True, height_ratios=[0.9, height])
    scale: dict[str, Any] = {"cmap": _BLUES, "vmin": 0, "vmax": max(1, counts.max()), "edgecolors": _GRID}
    edges = np.arange(clients + 1) - 0.5, np.arange(classes + 1) - 0.5
    cells = axes.pcolormesh(*edges, counts.T, linewidth=0.5, **scale)
    _style(axes, grid=False, x="client", y="class")
    axes.invert_yaxis()
    axes.set_yticks(range(classes), rows)
    axes.set_xticks(range(clients), columns, rotation=0 if upright else 90)
    axes.tick_params(length=0)
    totals = counts.sum(axis=1)
    bars.bar(range(clients), totals, width=0.7, color="#9A9A9A")
    bars.set_ylim(0, 1.3 * max(1, totals.max()))
    bars.set_axis_off()
    if numbers:
        _write_numbers(axes, bars, counts)
    else:
        key = sheet.figure.colorbar(cells, ax=axes, pad=0.01, fraction=0.03, aspect=30)
        key.locator = MaxNLocator(6, integer=True)
        _style_key(key, "samples")
    return sheet.figure


def _write_numbers(axes: Axes, bars: Axes, counts: Counts) -> None:
    """Counts into their cells, and sums above their bars."""
    style: dict[str, Any] = {"ha": "center", "fontsize": 8, "in_layout": False}
    dark = 0.62 * counts.max()
    for (client, label), count in np.ndenumerate(counts):
        if count:
            ink = "white" if count > dark else _INK
            axes.text(client, label, _compact(int(count)), va="center", color=ink, **style)
    for client, total in enumerate(counts.sum(axis=1)):
        bars.text(client, total, _compact(int(total)), va="bottom", color=_INK, **style)


def _stack_figure(counts: Counts, class_names: Sequence[str], title: str) -> Figure:
    """A bar for each client, the largest first, made of its classes."""
    clients, classes = counts.shape
    note = "Clients in the order of their size; each is a stack of its classes."
    sheet = _Sheet(11.0, 4.2, title, f"samples that each of {clients} clients holds", note)
    axes = sheet.figure.subplots()
    _style(axes, x="client, from the largest to the smallest", y="samples")
    ordered = counts[np.argsort(-counts.sum(axis=1), kind="stable")]
    tops = np.cumsum(ordered, axis=1)
    edges = np.arange(clients + 1) + 0.5
    colours = ListedColormap(_CLASSES(np.linspace(0, 1, classes)))
    for label in range(classes):
        top, below = tops[:, label], tops[:, label] - ordered[:, label]
        axes.stairs(
            top, edges, baseline=below, fill=True, color=colours(label), antialiased=False, linewidth=0
        )
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.04 * max(1, tops.max()))
    scale = ScalarMappable(BoundaryNorm(np.arange(classes + 1) - 0.5, classes), colours)
    key = sheet.figure.colorbar(scale, ax=axes, pad=0.015, fraction=0.04, aspect=16)
    named = range(0, classes, math.ceil(classes / 18))
    key.set_ticks(list(named), labels=[_short(class_names[label], 20) for label in named])
    key.minorticks_off()
    _style_key(key, "class")
    key.ax.tick_params(length=0)
    return sheet.figure


# Paper and ink


class _Sheet:
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
        heading = _wrap(f"{_shorten(title, 2 * letters)}: {what}", letters)
        notes = _wrap(note, int((width - 2 * _EDGE) / 0.072))
        top = _EDGE + 0.27 * len(heading)
        self.legend_top = top + _LINE * len(notes) + 0.1
        height += self.legend_top + room
        self.figure = Figure((width, height), facecolor="white")
        body = (0, 0, 1, 1 - (self.legend_top + room) / height)
        self.figure.set_layout_engine(
            "constrained", rect=body, w_pad=_EDGE, h_pad=0.08, wspace=0.02, hspace=0.01
        )
        self.place(top=_EDGE, text="\n".join(map(_plain, heading)), fontsize=14, color=_INK)
        self.place(top=top, text="\n".join(map(_plain, notes)), fontsize=9.5, color=_FAINT)

    def place(self, top: float, text: str, **style: Any) -> None:
        """Text at the left edge, ``top`` inches from the top."""
        width, height = self.figure.get_size_inches()
        self.figure.text(_EDGE / width, 1 - top / height, text, va="top", linespacing=1.35, **style)


def _method_legend(sheet: _Sheet, methods: Sequence[str]) -> None:
    width, height = sheet.figure.get_size_inches()
    styles = _styles(methods)
    handles = [
        Line2D([], [], color=styles[m][0], marker=styles[m][1], linewidth=1.8, markersize=6) for m in methods
    ]
    legend = sheet.figure.legend(
        handles,
        [f"method {place}" for place in range(len(methods))],
        loc="upper left",
        bbox_to_anchor=(_EDGE / width, 1 - sheet.legend_top / height),
        ncols=_legend_columns(methods, width),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.6,
        fontsize=10.5,
        labelcolor=_INK,
    )
    for text, method in zip(legend.get_texts(), methods, strict=True):
        text.set_text(_short(method))  # not at once: a legend drops labels that begin with an underscore


def _legend_columns(methods: Sequence[str], width: float) -> int:
    longest = max(len(_short(method)) for method in methods)
    return max(1, min(len(methods), int((width - 2 * _EDGE) / (0.75 + 0.095 * longest))))


def _styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: always the same for known ones, the rest share what is free.

    >>> _styles(["mine", "fedavg"])
    {'mine': ('#E69F00', '<'), 'fedavg': ('#D55E00', 'v')}
    """
    methods = list(methods)
    taken = [_KNOWN[method] for method in methods if method in _KNOWN]
    free = [colour for colour in _PALETTE[len(_KNOWN) :] + _PALETTE[: len(_KNOWN)] if colour not in taken]
    others = [method for method in methods if method not in _KNOWN]
    pool = free or _PALETTE
    colours = {method: pool[place % len(pool)] for place, method in enumerate(others)} | _KNOWN
    return {m: (colours[m], _MARKERS[_PALETTE.index(colours[m])]) for m in methods}


def _style(axes: Axes, *, grid: bool = True, x: str = "", y: str = "") -> None:
    """A white panel with a light grid and two thin lines at most; no colour comes from the user's matplotlibrc."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, labelcolor=_INK, color=_FAINT, length=3)
    for side, spine in axes.spines.items():
        spine.set(visible=grid and side in ("left", "bottom"), color=_FAINT, linewidth=0.8)
    axes.grid(visible=False)
    if grid:
        axes.grid(visible=True, color=_GRID, linewidth=0.8, linestyle="-")
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)


def _style_key(key: Colorbar, name: str) -> None:
    key.outline.set_visible(False)
    key.set_label(name, color=_INK, fontsize=10)
    key.ax.tick_params(labelsize=9, labelcolor=_INK, color=_FAINT)


def _panel_title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=20 if below else 6)
    if below:
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "in_layout": False}
        axes.text(0, 1.02, below, fontsize=9, color=_FAINT, **place)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9.5, color=_FAINT)


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Tens of percent around the values, within 0..100; 0 and 100 for no values.

    >>> _limits([63.2, 91.0])
    (60, 100)
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return 0, 100
    low, high = 10 * math.floor(min(known) / 10), 10 * math.ceil(max(known) / 10)
    return (low, high) if high > low else (max(0, low - 10), min(100, high + 10))


def _percent(axes: Axes, axis: str, low: float, high: float) -> None:
    """Set axis ``x`` or ``y`` to ``low``..``high`` with a margin that cuts no marker at 100 %, but no tick beyond."""
    margin = 0.04 * (high - low)
    step = next(s for s in (2, 5, 10, 20) if (high - low) / s <= 6)
    ticks = np.arange(step * math.ceil(low / step), high + 1, step)
    axes.set(**{f"{axis}ticks": ticks, f"{axis}lim": (low - margin, high + margin)})


def _wrap(text: str, most: int) -> list[str]:
    """As few lines of at most ``most`` characters as will do, about equally long.

    >>> _wrap("no word left alone at the end", 25)
    ['no word left', 'alone at the end']
    """
    lines = len(textwrap.wrap(text, most))
    tries = (textwrap.wrap(text, width) for width in range(max(1, len(text) // max(1, lines)), most + 1))
    return next((found for found in tries if len(found) <= lines), textwrap.wrap(text, most))


def _plain(text: str) -> str:
    """Text for matplotlib to show as it is: no mathematics between dollar signs."""
    return text.replace("$", r"\$")


def _shorten(text: str, most: int = 32) -> str:
    """One line of at most ``most`` characters, without its middle: both ends of a name tell it from others.

    >>> _shorten("participant-000000017-left", 14)
    'parti…017-left'
    """
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    head = (most - 1) // 2 - 1
    return f"{text[:head]}…{text[head + 1 - most :]}"


def _short(text: str, most: int = 32) -> str:
    return _plain(_shorten(text, most))


def _compact(count: int) -> str:
    """A count in at most four characters.

    >>> [_compact(n) for n in (7, 9999, 12345, 1234567)]
    ['7', '9999', '12k', '1.2M']
    """
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10_000 and count >= size:
            return f"{count / size:.0f}{unit}" if count >= 10 * size else f"{count / size:.1f}{unit}"
    return str(count)


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in a script the font lacks
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
