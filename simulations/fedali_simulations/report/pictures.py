"""Pictures of a study: accuracy by round, the clients one by one, and what each client holds.

Each is drawn on a ``Figure`` of its own, without pyplot; sizes are in inches, so that text never shrinks with data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedali.targets import Score
from fedali_simulations.report import drawing

ACCURACY = Score("", "accuracy", "accuracy")
Counts = npt.NDArray[np.integer[Any]]

_BLUES = LinearSegmentedColormap.from_list(
    "holdings", ["#FFFFFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B"]
)
_CLASSES = LinearSegmentedColormap.from_list(  # of viridis, without its palest end
    "classes", ["#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#A0DA39", "#E3E04A"]
)
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
    score: Score = ACCURACY,
    what: str = "class",
) -> list[Path]:
    """Write ``curves.png``, ``clients.png`` and ``holdings.png`` into ``folder``; their paths. ``score`` is what the numbers of clients are,
    ``what`` is counted of what they hold.
    """
    paths = [folder / name for name in ("curves.png", "clients.png", "holdings.png")]
    draw_curves(clients, paths[0], title=title, score=score)
    draw_clients(clients, selected, paths[1], title=title, score=score)
    first_seed = f", seed {clients['seed'].min()}" if clients["seed"].nunique() > 1 else ""
    draw_holdings(counts, client_names, class_names, paths[2], title=title + first_seed, what=what)
    return paths


def draw_curves(clients: pd.DataFrame, path: Path, *, title: str, score: Score = ACCURACY) -> None:
    """Accuracy, or another ``score``, by round of each method: personalisation, generalisation and the global model side by side.

    Lines are means over clients, then over seeds, as in the table: ``global`` weighs clients by ``test_samples`` where
    that column is there. Bands hold the middle 80 % of the clients, all seeds together.

    Args:
        clients: a row for each method, seed, round and client; accuracies 0..1, NaN or no column where not evaluated.
        path: of the PNG.
        title: what was run.
        score: what the numbers of clients are.
    """
    drawing.save(_curves_figure(clients, title, score), path)


def draw_clients(
    clients: pd.DataFrame,
    selected: Mapping[tuple[str, int], int],
    path: Path,
    *,
    title: str,
    score: Score = ACCURACY,
) -> None:
    """A dot for each client, generalisation against personalisation at the selected round, a panel for each method.

    Each seed has dots of its own, since its clients may hold other data; the cross is the method's mean, as in the table.

    Args:
        clients: a row for each method, seed, round and client; accuracies 0..1.
        selected: (method, seed) -> round.
        path: of the PNG.
        title: what was run.
        score: what the numbers of clients are.
    """
    drawing.save(_clients_figure(clients, selected, title, score), path)


def draw_holdings(
    counts: Counts,
    client_names: Sequence[str],
    class_names: Sequence[str],
    path: Path,
    *,
    title: str,
    what: str = "class",
) -> None:
    """How many samples of each class each client holds: a matrix up to 60 clients, beyond that bars sorted by size.

    Args:
        counts: samples [clients, classes].
        client_names: [clients].
        class_names: [classes].
        path: of the PNG.
        title: what was run.
        what: a class is.
    """
    drawing.save(_holdings_figure(counts, client_names, class_names, title, what), path)


# Accuracy by round


def _curves_figure(clients: pd.DataFrame, title: str, score: Score = ACCURACY) -> Figure:
    methods, width = list(dict.fromkeys(clients["method"])), 12.5
    room = 0.24 * math.ceil(len(methods) / drawing.legend_columns(methods, width))
    sheet = drawing.Sheet(width, 3.55, title, f"{score.title} by round", _what_curves_show(clients), room)
    drawing.method_legend(sheet, methods)
    panels = sheet.figure.subplots(1, 3, sharey=True)
    reach: list[float] = []
    evaluated = False  # generalisation, and with it the global models there are
    for axes, panel in zip(panels, _PANELS, strict=True):
        drawing.style(axes, x="round", y=drawing.axis_name(score.title, score) * (panel is _PANELS[0]))
        drawing.panel_title(axes, panel.title, panel.tested)
        means, bands = _by_round(clients, panel.measure, score)
        if len(means):
            evaluated = panel.measure == "generalisation"
            reach += [*means, *bands["low"], *bands["high"]]
            _draw_rounds(axes, methods, means, bands, int(clients["round"].max()))
        else:
            drawing.say(axes, "no method here\nhas a global model" if evaluated else "not evaluated")
            axes.set_xticks([])
    drawing.scale(panels[0], "y", *drawing.reach(reach, score), share=score.share)
    return sheet.figure


def _what_curves_show(clients: pd.DataFrame) -> str:
    people, seeds = clients["client"].nunique(), clients["seed"].nunique()
    over = f"{people} clients" + (f" and {seeds} seeds" if seeds > 1 else "")
    mark, span = ("Line", "Band") if clients["round"].nunique() > 1 else ("Marker", "Bar")
    text = f"{mark}: mean over {over}. {span}: the middle 80 % of clients (10th to 90th percentile)."
    having = set(clients.loc[clients["global"].notna(), "method"]) if "global" in clients else set()
    without = [drawing.shorten(method) for method in dict.fromkeys(clients["method"]) if method not in having]
    return f"{text} Without a global model: {', '.join(without)}." if having and without else text


def _by_round(clients: pd.DataFrame, measure: str, score: Score) -> tuple[pd.Series[float], pd.DataFrame]:
    """Means, of shares in percent, by (method, round), and the same of the 10th (``low``) and 90th (``high``) percentile."""
    if measure not in clients:
        clients = clients.assign(**{measure: math.nan})
    known = clients.dropna(subset=[measure])
    weighted = measure == "global" and "test_samples" in known
    weight = known["test_samples"] if weighted else pd.Series(1.0, known.index)
    parts = known[["method", "seed", "round"]].assign(
        value=drawing.shown(known[measure], score) * weight, weight=weight
    )
    sums = parts.groupby(["method", "seed", "round"])[["value", "weight"]].sum()
    means = (sums["value"] / sums["weight"]).groupby(["method", "round"]).mean().dropna()
    pooled = drawing.shown(known[measure], score).groupby([known["method"], known["round"]])
    return means, pd.DataFrame({"low": pooled.quantile(0.1), "high": pooled.quantile(0.9)}).loc[means.index]


def _draw_rounds(
    axes: Axes, methods: Sequence[str], means: pd.Series[float], bands: pd.DataFrame, last: int
) -> None:
    """Lines and bands over rounds 1 to ``last``; of a single round markers and bars, side by side."""
    present = [method for method in methods if method in means.index.get_level_values("method")]
    rounds, styles = sorted(set(means.index.get_level_values("round"))), drawing.styles(methods)
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


def _clients_figure(
    clients: pd.DataFrame, selected: Mapping[tuple[str, int], int], title: str, score: Score = ACCURACY
) -> Figure:
    methods, seeds = list(dict.fromkeys(clients["method"])), clients["seed"].nunique()
    columns = len(methods) if len(methods) < 5 else max(3, min(5, math.ceil(len(methods) / 2)))
    rows = math.ceil(len(methods) / columns)
    side = {1: 4.8, 2: 4.2, 3: 3.3, 4: 3.1}.get(columns, 2.8)
    note = (
        f"Dot: a client{f' in one of {seeds} seeds' if seeds > 1 else ''}, at the round selected on validation data. "
        f"Cross: the method's mean. {'Above' if score.better == 'more' else 'Below'} the dashed line: better on own data than on everyone's."
    )
    what = "personalisation and generalisation of each client" + (
        "" if score.name == ACCURACY.name else f": {score.title}"
    )
    sheet = drawing.Sheet(max(side * columns + 0.9, 7.5), (side + 0.65) * rows + 0.4, title, what, note)
    panels = sheet.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    chosen = _at_selected(clients, selected)
    limits = drawing.reach(drawing.shown(chosen[_PAIR].dropna(), score).to_numpy().ravel(), score)
    styles = drawing.styles(methods)
    for place, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        lowest = place + columns >= len(methods)
        x_name = drawing.axis_name("generalisation", score) * lowest
        y_name = drawing.axis_name("personalisation", score) * (place % columns == 0)
        drawing.style(axes, x=x_name, y=y_name)
        axes.xaxis.set_tick_params(labelbottom=lowest)
        axes.set_box_aspect(1)
        axes.plot([-1000, 1000], [-1000, 1000], linestyle=(0, (4, 3)), color="#999999", linewidth=1, zorder=1)
        name = drawing.short(method, int(side / 0.1))
        _draw_dots(axes, chosen[chosen["method"] == method], styles[method][0], name, score)
        drawing.scale(axes, "x", *limits, share=score.share)
        drawing.scale(axes, "y", *limits, share=score.share)
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


def _draw_dots(axes: Axes, rows: pd.DataFrame, colour: str, title: str, score: Score) -> None:
    dots = drawing.shown(rows.dropna(subset=_PAIR)[_PAIR], score)
    if not len(dots):
        drawing.panel_title(axes, title, "")
        drawing.say(axes, "not evaluated")
        return
    means = rows.groupby("seed")[_PAIR].mean().mean()
    x, y = drawing.shown(means, score).to_numpy()
    own, everyones = (score.text(float(means[name])) for name in reversed(_PAIR))
    drawing.panel_title(axes, title, f"mean {own} own, {everyones} everyone's")
    crowd = min(1.0, math.sqrt(20 / len(dots)))
    dot: dict[str, Any] = {"s": 9 + 27 * crowd, "alpha": 0.3 + 0.4 * crowd, "color": colour, "linewidths": 0}
    axes.scatter(dots["generalisation"], dots["personalisation"], zorder=3, **dot)
    for size, width, tone in ((9.5, 4, "white"), (8, 1.9, drawing.DARK)):
        axes.plot(x, y, marker="x", markersize=size, markeredgewidth=width, color=tone, zorder=4)


# What clients hold


def _holdings_figure(
    counts: Counts, client_names: Sequence[str], class_names: Sequence[str], title: str, what: str = "class"
) -> Figure:
    counts = np.asarray(counts)
    if len(counts) <= _MATRIX:
        return _matrix_figure(counts, client_names, class_names, title, what)
    return _stack_figure(counts, class_names, title, what)


def _matrix_figure(
    counts: Counts, client_names: Sequence[str], class_names: Sequence[str], title: str, what: str = "class"
) -> Figure:
    """A column for each client, a row for each class, and above each column its sum."""
    clients, classes = counts.shape
    columns, rows = (
        [drawing.short(name, 14) for name in client_names],
        [drawing.short(name, 20) for name in class_names],
    )
    longest = max(map(len, columns))
    numbers = clients <= 30
    cell = min(1.3, max(0.4 if numbers else 0.2, 8.5 / clients)), 0.34 if classes <= 20 else 0.22
    upright = 0.085 * longest < cell[0]
    width = max(cell[0] * clients + 1.2 + 0.08 * max(map(len, rows)), 7.5)
    below = 0.45 if upright else 0.45 + 0.075 * longest
    of_all = "all that a client has" if what == "label" else "all samples of a client"
    note = f"Cells: samples of a {what}. Bars: {of_all}." + (" Blank: none." if numbers else "")
    height = cell[1] * classes
    sheet = drawing.Sheet(width, height + 1.0 + below, title, "samples that each client holds", note)
    bars, axes = sheet.figure.subplots(2, 1, sharex=True, height_ratios=[0.9, height])
    scale: dict[str, Any] = {
        "cmap": _BLUES,
        "vmin": 0,
        "vmax": max(1, counts.max()),
        "edgecolors": drawing.GRID,
    }
    edges = np.arange(clients + 1) - 0.5, np.arange(classes + 1) - 0.5
    cells = axes.pcolormesh(*edges, counts.T, linewidth=0.5, **scale)
    drawing.style(axes, grid=False, x="client", y=what)
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
        drawing.style_key(key, "samples")
    return sheet.figure


def _write_numbers(axes: Axes, bars: Axes, counts: Counts) -> None:
    """Counts into their cells, and sums above their bars."""
    style: dict[str, Any] = {"ha": "center", "fontsize": 8, "in_layout": False}
    dark = 0.62 * counts.max()
    for (client, label), count in np.ndenumerate(counts):
        if count:
            tone = "white" if count > dark else drawing.DARK
            axes.text(client, label, drawing.compact(int(count)), va="center", color=tone, **style)
    for client, total in enumerate(counts.sum(axis=1)):
        bars.text(client, total, drawing.compact(int(total)), va="bottom", color=drawing.DARK, **style)


def _stack_figure(counts: Counts, class_names: Sequence[str], title: str, what: str = "class") -> Figure:
    """A bar for each client, the largest first, made of its classes."""
    clients, classes = counts.shape
    note = "Clients in the order of their size; each is a stack of its classes."
    sheet = drawing.Sheet(11.0, 4.2, title, f"samples that each of {clients} clients holds", note)
    axes = sheet.figure.subplots()
    drawing.style(axes, x="client, from the largest to the smallest", y="samples")
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
    key.set_ticks(list(named), labels=[drawing.short(class_names[label], 20) for label in named])
    key.minorticks_off()
    drawing.style_key(key, what)
    key.ax.tick_params(length=0)
    return sheet.figure
