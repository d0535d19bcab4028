"""Pictures of a study: accuracy by round, the clients one by one, and what each client holds.

Each is drawn on a ``Figure`` of its own, without pyplot; sizes are in inches, so that text never shrinks with data.
"""

from __future__ import annotations

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
_MATRIX = 60  # the most clients that get a column of the matrix


class _Panel(NamedTuple):
    measure: str
    title: str
    tested: str
    missing: str


_PANELS = (
    _Panel("personalisation", "Personalisation", "clients' models, own test data", "not measured"),
    _Panel("generalisation", "Generalisation", "clients' models, everyone's test data", "not evaluated"),
    _Panel(
        "global", "Global model", "server's model, everyone's test data", "no method here\nhas a global model"
    ),
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
    methods = list(dict.fromkeys(clients["method"]))
    width = 12.5
    entries = _legend_rows(methods, width)
    sheet = _Sheet(width, 3.55, title, "accuracy by round", _what_curves_show(clients), 0.25 * entries + 0.1)
    _method_legend(sheet, methods)
    panels = sheet.figure.subplots(1, 3, sharey=True)
    reach: list[float] = []
    for axes, panel in zip(panels, _PANELS, strict=True):
        _style(axes)
        _panel_title(axes, panel.title, panel.tested)
        means, bands = _by_round(clients, panel.measure)
        rounds = sorted({int(round_) for _, round_ in means.index})
        if rounds:
            reach += [*means, *bands["low"], *bands["high"]]
            _draw_rounds(axes, methods, means, bands, rounds)
        else:
            axes.text(
                0.5, 0.5, panel.missing, transform=axes.transAxes, ha="center", va="center", color=_FAINT
            )
            axes.set_xticks([])
        axes.set_xlabel("round", color=_INK, fontsize=10)
    panels[0].set_ylabel("accuracy (%)", color=_INK, fontsize=10)
    _percent(panels[0].yaxis, *_limits(reach))
    return sheet.figure


def _what_curves_show(clients: pd.DataFrame) -> str:
    people, seeds = clients["client"].nunique(), clients["seed"].nunique()
    over = f"{people} clients" + (f" and {seeds} seeds" if seeds > 1 else "")
    text = f"Line: mean over {over}. Band: the middle 80 % of clients (10th to 90th percentile)."
    known = clients[clients["global"].notna()] if "global" in clients else clients[:0]
    without = [m for m in dict.fromkeys(clients["method"]) if m not in set(known["method"])]
    return text + (
        f" Without a global model: {', '.join(map(_short, without))}." if len(known) and without else ""
    )


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
    return means, pd.DataFrame({"low": pooled.quantile(0.1), "high": pooled.quantile(0.9)})


def _draw_rounds(
    axes: Axes, methods: Sequence[str], means: pd.Series[float], bands: pd.DataFrame, rounds: Sequence[int]
) -> None:
    """Lines and bands; with a single round markers and bars, side by side."""
    present = [method for method in methods if method in means.index.get_level_values("method")]
    styles = _styles(methods)
    for place, method in enumerate(present):
        mean = means.loc[method]
        band = bands.loc[method].reindex(mean.index)
        colour, marker = styles[method]
        above = 4 - place / 100  # the first method on top
        x = mean.index.to_numpy(float)
        line: dict[str, Any] = {"color": colour, "marker": marker, "zorder": above, "gid": method}
        if len(rounds) == 1:
            x = x + 0.8 * ((place + 0.5) / len(present) - 0.5)
            axes.vlines(x, band["low"], band["high"], color=colour, alpha=0.3, linewidth=6, zorder=above - 1)
            axes.plot(x, mean, linestyle="none", markersize=7, markeredgecolor="white", **line)
        else:
            opacity = 0.15 if len(present) < 4 else 0.09
            axes.fill_between(
                x, band["low"], band["high"], color=colour, alpha=opacity, linewidth=0, zorder=2
            )
            every = (place % max(1, len(x) // 8), max(1, len(x) // 8))
            axes.plot(x, mean, linewidth=1.8, markersize=4.5, markeredgewidth=0, markevery=every, **line)
    if len(rounds) == 1:
        axes.set_xlim(rounds[0] - 0.5, rounds[0] + 0.5)
        axes.set_xticks(rounds)
        axes.grid(visible=False, axis="x")
    else:
        axes.set_xlim(
            rounds[0] - 0.03 * (rounds[-1] - rounds[0]), rounds[-1] + 0.03 * (rounds[-1] - rounds[0])
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


# Clients one by one


def _clients_figure(clients: pd.DataFrame, selected: Mapping[tuple[str, int], int], title: str) -> Figure:
    methods = list(dict.fromkeys(clients["method"]))
    columns = len(methods) if len(methods) < 6 else min(5, math.ceil(len(methods) / 2))
    rows = math.ceil(len(methods) / columns)
    side = {1: 4.6, 2: 4.0, 3: 3.6}.get(columns, 3.0 if columns == 4 else 2.6)
    chosen = _at_selected(clients, selected)
    seeds = clients["seed"].nunique()
    dot = "a client" + (f", mean over {seeds} seeds" if seeds > 1 else "")
    note = f"Dot: {dot}, at the round selected on validation data. Cross: the method's mean."
    above = "Above the dashed line a client's model does better on its own data than on everyone's."
    width = max(side * columns + 0.9, 7.5)
    sheet = _Sheet(
        width,
        (side + 0.6) * rows,
        title,
        "personalisation and generalisation of each client",
        f"{note} {above}",
    )
    panels = sheet.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    shown = chosen.dropna(subset=["generalisation", "personalisation"])
    low, high = _limits([*(100 * shown["generalisation"]), *(100 * shown["personalisation"])])
    styles = _styles(methods)
    for place, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        _style(axes)
        axes.set_box_aspect(1)
        axes.plot([-20, 120], [-20, 120], linestyle=(0, (4, 3)), color="#999999", linewidth=1, zorder=1)
        _draw_dots(axes, chosen[chosen["method"] == method], styles[method][0], method)
        _percent(axes.xaxis, low, high)
        _percent(axes.yaxis, low, high)
        if place + columns >= len(methods):
            axes.set_xlabel("generalisation (%)", color=_INK, fontsize=10)
            axes.xaxis.set_tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel("personalisation (%)", color=_INK, fontsize=10)
    for axes in panels[len(methods) :]:
        axes.remove()
    return sheet.figure


def _at_selected(clients: pd.DataFrame, selected: Mapping[tuple[str, int], int]) -> pd.DataFrame:
    """Rows of the selected rounds, with a column of generalisation in any case."""
    if "generalisation" not in clients:
        clients = clients.assign(generalisation=math.nan)
    keys = zip(clients["method"], clients["seed"], strict=True)
    rounds = np.array([selected[method, int(seed)] for method, seed in keys], int)
    return clients[clients["round"].to_numpy() == rounds]


def _draw_dots(axes: Axes, rows: pd.DataFrame, colour: str, method: str) -> None:
    pair = ["generalisation", "personalisation"]
    dots = 100 * rows.dropna(subset=pair).groupby("client", sort=False)[pair].mean()
    mean = 100 * rows.groupby("seed")[pair].mean().mean()
    if not len(dots):
        _panel_title(axes, _short(method), "")
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", va="center", color=_FAINT)
        return
    _panel_title(
        axes,
        _short(method),
        f"mean {mean['personalisation']:.1f} own, {mean['generalisation']:.1f} everyone's",
    )
    crowd = min(1.0, (20 / len(dots)) ** 0.5)
    axes.scatter(
        *dots.to_numpy().T,
        s=10 + 34 * crowd,
        color=colour,
        alpha=0.3 + 0.4 * crowd,
        linewidths=0,
        zorder=3,
        gid=method,
    )
    for width, ink in ((4.6, "white"), (2.2, _INK)):
        axes.plot(*mean[pair], "x", markersize=11, markeredgewidth=width, color=ink, zorder=4)


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
    numbers = clients <= 30
    cell = min(1.3, max(0.4 if numbers else 0.2, 8.5 / clients))
    names = [_short(name, 14) for name in client_names]
    upright = max(map(len, names)) * 0.085 < cell
    below = 0.45 if upright else 0.45 + 0.075 * max(map(len, names))
    rows = [_short(name, 20) for name in class_names]
    row = 0.34 if classes <= 20 else 0.22
    width = max(cell * clients + 1.2 + 0.08 * max(map(len, rows)), 7.5)
    note = "Samples of each class; bars: all samples of a client." + (" Blank: none." if numbers else "")
    sheet = _Sheet(width, row * classes + 1.0 + below, title, "samples that each client holds", note)
    bars, axes = sheet.figure.subplots(2, 1, sharex=True, height_ratios=[0.9, row * classes])
    cells = axes.pcolormesh(
        np.arange(clients + 1) - 0.5,
        np.arange(classes + 1) - 0.5,
        counts.T,
        cmap=_BLUES,
        vmin=0,
        vmax=max(1, counts.max(initial=1)),
        edgecolors=_GRID,
        linewidth=0.5,
    )
    _style(axes, grid=False)
    axes.invert_yaxis()
    axes.set_yticks(range(classes), rows, parse_math=False)
    axes.set_xticks(range(clients), names, rotation=0 if upright else 90, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xlabel("client", color=_INK, fontsize=10)
    axes.set_ylabel("class", color=_INK, fontsize=10)
    _style(bars, grid=False)
    totals = counts.sum(axis=1)
    bars.bar(range(clients), totals, width=0.7, color="#9A9A9A", gid="totals")
    bars.set_ylim(0, 1.3 * max(1, totals.max()))
    bars.set_axis_off()
    if numbers:
        _write_numbers(axes, counts)
        for x, total in enumerate(totals):
            bars.text(
                x, total, _compact(total), ha="center", va="bottom", fontsize=8, color=_INK, in_layout=False
            )
    else:
        bar = sheet.figure.colorbar(cells, ax=axes, pad=0.01, fraction=0.03, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label("samples", color=_INK, fontsize=10)
        bar.ax.tick_params(labelsize=9, labelcolor=_INK, color=_FAINT)
        bar.locator = MaxNLocator(6, integer=True)
        bar.update_ticks()
    return sheet.figure


def _write_numbers(axes: Axes, counts: Counts) -> None:
    dark = 0.5 * counts.max(initial=1)
    for (client, label), count in np.ndenumerate(counts):
        if count:
            ink = "white" if count > dark else _INK
            axes.text(
                client,
                label,
                _compact(count),
                ha="center",
                va="center",
                fontsize=8,
                color=ink,
                in_layout=False,
            )


def _stack_figure(counts: Counts, class_names: Sequence[str], title: str) -> Figure:
    """A bar for each client, the largest first, made of its classes."""
    clients, classes = counts.shape
    note = "Clients in the order of their size; each is a stack of its classes."
    sheet = _Sheet(11.0, 4.2, title, f"samples that each of {clients} clients holds", note)
    axes = sheet.figure.subplots()
    _style(axes)
    ordered = counts[np.argsort(-counts.sum(axis=1), kind="stable")]
    tops = np.cumsum(ordered, axis=1)
    edges = np.arange(clients + 1) + 0.5
    colours = _CLASSES(np.linspace(0, 1, classes))
    for label in range(classes):
        axes.stairs(
            tops[:, label],
            edges,
            baseline=tops[:, label] - ordered[:, label],
            fill=True,
            color=colours[label],
            antialiased=False,
            linewidth=0,
            gid=f"class {label}",
        )
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.04 * max(1, tops[:, -1].max()))
    axes.set_xlabel("client, from the largest to the smallest", color=_INK, fontsize=10)
    axes.set_ylabel("samples", color=_INK, fontsize=10)
    key = sheet.figure.colorbar(_class_scale(classes), ax=axes, pad=0.015, fraction=0.025, aspect=24)
    step = math.ceil(classes / 18)
    key.set_ticks(range(0, classes, step), labels=[_short(name, 20) for name in class_names[::step]])
    key.outline.set_visible(False)
    key.ax.tick_params(length=0, labelsize=9, labelcolor=_INK)
    return sheet.figure


def _class_scale(classes: int) -> ScalarMappable:
    colours = ListedColormap(_CLASSES(np.linspace(0, 1, classes)))
    return ScalarMappable(BoundaryNorm(np.arange(classes + 1) - 0.5, classes), colours)


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
        heading = textwrap.wrap(f"{title}: {what}", int(width / 0.125), max_lines=3, placeholder=" …")
        notes = textwrap.wrap(note, int((width - 2 * _EDGE) / 0.072))
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


def _legend_rows(methods: Sequence[str], width: float) -> int:
    return math.ceil(len(methods) / _legend_columns(methods, width))


def _styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: always the same for known ones, the rest share what is free.

    >>> _styles(["mine", "fedavg"])
    {'mine': ('#E69F00', 'X'), 'fedavg': ('#D55E00', '^')}
    """
    methods = list(methods)
    taken = [_KNOWN[method] for method in methods if method in _KNOWN]
    free = [colour for colour in _PALETTE[len(_KNOWN) :] + _PALETTE[: len(_KNOWN)] if colour not in taken]
    others = [method for method in methods if method not in _KNOWN]
    pool = free or _PALETTE
    colours = {method: pool[place % len(pool)] for place, method in enumerate(others)} | _KNOWN
    return {m: (colours[m], _MARKERS[_PALETTE.index(colours[m])]) for m in methods}


def _style(axes: Axes, *, grid: bool = True) -> None:
    """A white panel with a light grid and two thin lines at most; nothing comes from the user's matplotlibrc."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, labelcolor=_INK, color=_FAINT, length=3, direction="out", which="both")
    for side, spine in axes.spines.items():
        spine.set(visible=grid and side in ("left", "bottom"), color=_FAINT, linewidth=0.8)
    axes.grid(visible=grid, color=_GRID, linewidth=0.8, linestyle="-") if grid else axes.grid(visible=False)


def _panel_title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=20 if below else 6)
    if below:
        axes.text(0, 1.02, below, transform=axes.transAxes, va="bottom", fontsize=9, color=_FAINT)


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Round percentages around the values, at least 10 apart, within 0..100; 0 and 100 for no values.

    >>> _limits([63.2, 91.0])
    (60, 95)
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return 0, 100
    low, high = 5 * math.floor(min(known) / 5), 5 * math.ceil(max(known) / 5)
    if high - low < 10:
        low, high = max(0, low - 5), min(100, high + 5)
    return low, high


def _percent(axis: Any, low: float, high: float) -> None:
    """Set an axis to ``low``..``high`` with a margin, so that no marker at 100 % is cut, but no tick beyond."""
    margin = 0.04 * (high - low)
    step = next(s for s in (2, 5, 10, 20) if (high - low) / s <= 6)
    axis.set_ticks(np.arange(step * math.ceil(low / step), high + 1, step))
    axis._set_lim(low - margin, high + margin, auto=False)


def _plain(text: object) -> str:
    """Text as it is, on one line: no mathematics between dollar signs."""
    return " ".join(str(text).split()).replace("$", r"\$")


def _short(text: object, most: int = 24) -> str:
    """At most ``most`` characters, without the middle: both ends of a name tell it from others.

    >>> _short("participant-000000017-left", 14)
    'parti…017-left'
    """
    text = " ".join(str(text).split())
    if len(text) > most:
        head = (most - 1) // 2 - 1
        text = f"{text[:head]}…{text[head + 1 - most :]}"
    return text.replace("$", r"\$")


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
