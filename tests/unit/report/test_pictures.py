"""Pictures: what is drawn is what was measured, whatever the size of the study."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedali_simulations.report import drawing, pictures

METHODS = ["fedali-paper", "fedali-head", "l2only", "fedavg", "fedper", "local"]
PERSONAL = {"fedper", "local"}


def _clients(
    methods: list[str], *, seeds: int = 2, clients: int = 5, rounds: int = 4, every: int = 1, seed: int = 0
) -> pd.DataFrame:
    """A row for each method, seed, round and client, of random accuracies."""
    index = pd.MultiIndex.from_product(
        [methods, range(seeds), range(1, rounds + 1), [f"client {i}" for i in range(clients)]],
        names=["method", "seed", "round", "client"],
    )
    rows = index.to_frame(index=False)
    rng = np.random.default_rng(seed)
    draw = rng.uniform(0.3, 1, (3, len(rows)))
    evaluated = (rows["round"] % every == 0) | (rows["round"] == rounds)
    return rows.assign(
        samples=40.0,
        validation=draw[0],
        personalisation=draw[0],
        generalisation=np.where(evaluated, draw[1], np.nan),
        **{"global": np.where(evaluated & ~rows["method"].isin(PERSONAL), draw[2], np.nan)},
    )


def _selected(clients: pd.DataFrame, round_: int) -> dict[tuple[str, int], int]:
    pairs = clients[["method", "seed"]].drop_duplicates()
    return {(method, int(seed)): round_ for method, seed in zip(pairs["method"], pairs["seed"], strict=True)}


def _counts(clients: int, classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([0.4] * classes, clients)
    return np.stack(
        [rng.multinomial(int(n), p) for n, p in zip(rng.lognormal(5, 1, clients), shares, strict=True)]
    )


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind} {i}" for i in range(count)]


def _line(axes: Axes, method: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in axes.lines if line.get_gid() == method]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def _rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _assert_nothing_is_cut(figure: Figure) -> None:
    """The rim of the paper is white, and the heading and the panels keep apart, lines below titles too."""
    pixels = _rendered(figure)[..., :3]
    for rim in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (rim == 255).all()
    panels = [axes for axes in figure.axes if axes.axison]
    heading = [text.get_window_extent() for text in figure.texts]
    for box in heading:
        assert not any(other is not box and other.overlaps(box) for other in heading)
        assert not any(axes.get_tightbbox().overlaps(box) for axes in panels)
    boxes = [
        text.get_window_extent() for axes in panels for text in axes.texts if text.get_position() == (0, 1.02)
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def _png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_draw_all_writes_three_pngs_and_nothing_else(tmp_path: Path) -> None:
    clients = _clients(METHODS)
    paths = pictures.draw_all(
        tmp_path / "run",
        clients=clients,
        selected=_selected(clients, 4),
        counts=_counts(5, 6),
        client_names=_names("client", 5),
        class_names=_names("class", 6),
        title="motionsense",
    )
    assert [path.name for path in paths] == ["curves.png", "clients.png", "holdings.png"]
    assert sorted(paths) == sorted((tmp_path / "run").iterdir())
    for path in paths:
        width, height = _png_size(path)
        assert 900 < width < 3000
        assert 400 < height < 3000
        assert path.stat().st_size < 1_000_000


def test_the_same_results_give_the_same_bytes_whatever_the_users_matplotlib_style(tmp_path: Path) -> None:
    clients = _clients(METHODS)

    def draw(folder: Path) -> list[bytes]:
        names = _names("client", 5), _names("class", 6)
        numbers: dict[str, Any] = {
            "clients": clients,
            "selected": _selected(clients, 4),
            "counts": _counts(5, 6),
        }
        paths = pictures.draw_all(folder, **numbers, client_names=names[0], class_names=names[1], title="t")
        return [path.read_bytes() for path in paths]

    plain = draw(tmp_path / "plain")
    with matplotlib.style.context("dark_background"):
        assert draw(tmp_path / "dark") == plain


# Accuracy by round


def test_lines_are_means_over_clients_and_seeds_in_percent() -> None:
    clients = _clients(["fedali-paper", "local"], seeds=3, rounds=6, every=2)
    personalisation, generalisation, global_ = pictures._curves_figure(clients, "digits").axes
    for method in ("fedali-paper", "local"):
        own = clients[clients["method"] == method]
        x, y = _line(personalisation, method)
        np.testing.assert_array_equal(x, [1, 2, 3, 4, 5, 6])
        np.testing.assert_allclose(
            y, [100 * own[own["round"] == r]["personalisation"].to_numpy().mean() for r in x]
        )
        x, y = _line(generalisation, method)
        np.testing.assert_array_equal(x, [2, 4, 6])
        np.testing.assert_allclose(
            y, [100 * own[own["round"] == r]["generalisation"].to_numpy().mean() for r in x]
        )
    assert [line.get_gid() for line in global_.lines] == ["fedali-paper"]


def test_bands_hold_the_middle_of_all_clients_of_all_seeds() -> None:
    clients = _clients(["fedali-paper"], seeds=3, clients=7)
    axes = pictures._curves_figure(clients, "digits").axes[0]
    corners = axes.collections[0].get_paths()[0].vertices
    for round_ in range(1, 5):
        pooled = 100 * clients[clients["round"] == round_]["personalisation"].to_numpy()
        drawn = sorted({round(y, 9) for x, y in corners if x == round_})
        np.testing.assert_allclose([drawn[0], drawn[-1]], np.percentile(pooled, [10, 90]), rtol=1e-8)


def test_the_global_line_weighs_clients_by_test_samples_as_the_table_does() -> None:
    clients = _clients(["fedavg"], seeds=2)
    clients["test_samples"] = np.random.default_rng(1).integers(1, 90, len(clients)).astype(float)
    _, y = _line(pictures._curves_figure(clients, "digits").axes[2], "fedavg")
    for round_, value in enumerate(y, 1):
        rows = [clients[(clients["round"] == round_) & (clients["seed"] == seed)] for seed in (0, 1)]
        np.testing.assert_allclose(
            value, 100 * np.mean([np.average(r["global"], weights=r["test_samples"]) for r in rows])
        )


def test_a_client_that_sat_a_round_out_is_left_out_of_its_mean() -> None:
    clients = _clients(["fedavg"], seeds=1)
    clients.loc[(clients["round"] == 2) & (clients["client"] == "client 3"), "personalisation"] = np.nan
    _, y = _line(pictures._curves_figure(clients, "digits").axes[0], "fedavg")
    np.testing.assert_allclose(y[1], 100 * np.nanmean(clients[clients["round"] == 2]["personalisation"]))


@pytest.mark.parametrize("columns", ["absent", "empty"])
def test_no_global_model_at_all_is_said(columns: str) -> None:
    clients = _clients(["local", "fedper"], every=2)
    axes = pictures._curves_figure(
        clients.drop(columns="global") if columns == "absent" else clients, "digits"
    ).axes
    assert axes[2].texts[-1].get_text() == "no method here\nhas a global model"
    assert axes[1].lines
    assert not axes[2].lines


@pytest.mark.parametrize("columns", ["absent", "empty"])
def test_a_study_without_evaluations_says_so(columns: str) -> None:
    clients = _clients(["fedavg", "fedper"])
    names = ["generalisation", "global"]
    clients = (
        clients.drop(columns=names) if columns == "absent" else clients.assign(**dict.fromkeys(names, np.nan))
    )
    figure = pictures._curves_figure(clients, "digits")
    assert [axes.texts[-1].get_text() for axes in figure.axes[1:]] == ["not evaluated"] * 2
    assert [bool(axes.lines) for axes in figure.axes] == [True, False, False]
    assert "not evaluated" in _texts(pictures._clients_figure(clients, _selected(clients, 2), "digits"))


def test_methods_without_a_global_model_are_named() -> None:
    heading = " ".join(_texts(pictures._curves_figure(_clients(METHODS), "digits")))
    assert "Without a global model: fedper, local." in heading.replace("\n", " ")


def test_a_single_round_is_shown_as_markers_side_by_side() -> None:
    clients = _clients(METHODS, rounds=1)
    axes = pictures._curves_figure(clients, "digits").axes[0]
    xs = [_line(axes, method)[0][0] for method in METHODS]
    assert all(line.get_linestyle() == "None" for line in axes.lines)
    assert all(abs(x - 1) < 0.5 for x in xs)
    assert min(np.diff(xs)) > 0.1
    assert list(axes.get_xticks()) == [1]


def test_a_colour_and_a_marker_belong_to_a_method_in_every_picture_and_every_study() -> None:
    alone, all_ = (
        drawing.styles(["fedavg"]),
        drawing.styles([*METHODS, "mine", "yours", "theirs", "fedali-kmeans"]),
    )
    assert alone["fedavg"] == all_["fedavg"]
    assert len({colour for colour, _ in all_.values()}) == len({marker for _, marker in all_.values()}) == 10
    assert len(drawing.styles(_names("method", 14))) == 14
    clients = _clients(["mine", "local"])
    curves = pictures._curves_figure(clients, "digits").axes[0]
    dots = pictures._clients_figure(clients, _selected(clients, 4), "digits").axes
    for axes, line in zip(dots, curves.lines, strict=True):
        assert to_hex(axes.collections[0].get_facecolor()[0]) == to_hex(line.get_color())


def test_the_legend_lies_outside_the_panels() -> None:
    figure = pictures._curves_figure(_clients(METHODS), "digits")
    _rendered(figure)
    legend = figure.legends[0].get_window_extent()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == METHODS
    assert not any(axes.get_tightbbox().overlaps(legend) for axes in figure.axes)


# Clients one by one


def test_a_dot_is_a_client_of_a_seed_at_the_selected_round_and_the_cross_their_mean() -> None:
    clients = _clients(["fedali-paper", "fedavg"], seeds=2, clients=8)
    selected = {("fedali-paper", 0): 2, ("fedali-paper", 1): 3, ("fedavg", 0): 4, ("fedavg", 1): 1}
    figure = pictures._clients_figure(clients, selected, "digits")
    for axes, method in zip(figure.axes, ("fedali-paper", "fedavg"), strict=True):
        chosen = pd.concat(
            clients[
                (clients["method"] == method)
                & (clients["seed"] == s)
                & (clients["round"] == selected[method, s])
            ]
            for s in (0, 1)
        )
        expected = 100 * chosen[["generalisation", "personalisation"]].to_numpy()
        np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets()), expected)
        cross = [np.ravel(line.get_xydata()) for line in axes.lines if line.get_marker() == "x"]
        np.testing.assert_allclose(cross[-1], np.mean(expected, axis=0))
        np.testing.assert_allclose(axes.get_xlim(), axes.get_ylim())
        diagonal = np.asarray(axes.lines[0].get_xydata())
        np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])


# What clients hold


@pytest.mark.parametrize(("clients", "classes"), [(2, 2), (24, 6), (60, 50)])
def test_the_matrix_is_the_counts(clients: int, classes: int) -> None:
    counts = _counts(clients, classes)
    figure = pictures._holdings_figure(counts, _names("subject", clients), _names("class", classes), "digits")
    bars, axes = figure.axes[:2]
    np.testing.assert_array_equal(np.asarray(axes.collections[0].get_array()), counts.T)
    np.testing.assert_array_equal([bar.get_height() for bar in bars.patches], counts.sum(axis=1))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == _names("subject", clients)
    if clients <= 30:
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert written == {(i, j): str(n) for (i, j), n in np.ndenumerate(counts) if n}
    _assert_nothing_is_cut(figure)


@pytest.mark.parametrize(("clients", "classes"), [(61, 2), (1000, 50)])
def test_beyond_sixty_clients_bars_are_stacked_largest_first(clients: int, classes: int) -> None:
    counts = _counts(clients, classes)
    figure = pictures._holdings_figure(counts, _names("client", clients), _names("class", classes), "digits")
    steps = [patch.get_data() for patch in figure.axes[0].patches]
    held = np.stack([step.values - step.baseline for step in steps], axis=1)
    assert sorted(map(tuple, held)) == sorted(map(tuple, counts))
    assert all(np.diff(held.sum(axis=1)) <= 0)
    np.testing.assert_array_equal(steps[-1].values, held.sum(axis=1))
    _assert_nothing_is_cut(figure)


# Any size, any name


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 10])
def test_one_to_ten_methods_fit_the_paper(count: int) -> None:
    clients = _clients([*METHODS, *_names("variant", 4)][:count])
    _assert_nothing_is_cut(pictures._curves_figure(clients, "motionsense"))
    figure = pictures._clients_figure(clients, _selected(clients, 4), "motionsense")
    assert len(figure.axes) == count
    _assert_nothing_is_cut(figure)


@pytest.mark.parametrize(
    "size",
    [
        {"seeds": 1, "clients": 2, "rounds": 1},
        {"seeds": 20, "clients": 3, "rounds": 2},
        {"seeds": 1, "clients": 2, "rounds": 500, "every": 500},
        {"seeds": 1, "clients": 1000, "rounds": 3},
    ],
)
def test_studies_of_any_size_are_drawn(size: dict[str, int], tmp_path: Path) -> None:
    clients = _clients(["fedali-paper", "local"], **size)
    pictures.draw_curves(clients, tmp_path / "curves.png", title="digits")
    pictures.draw_clients(
        clients, _selected(clients, size["rounds"]), tmp_path / "clients.png", title="digits"
    )
    dots = (
        pictures._clients_figure(clients, _selected(clients, size["rounds"]), "digits").axes[0].collections[0]
    )
    assert len(dots.get_offsets()) == size["clients"] * size["seeds"]


def test_equal_accuracies_of_everyone_are_drawn() -> None:
    clients = _clients(["fedali-paper"]).assign(personalisation=1.0, generalisation=1.0, **{"global": 1.0})
    low, high = pictures._curves_figure(clients, "digits").axes[0].get_ylim()
    assert low < 91
    assert high > 100


def test_clients_without_samples_are_drawn() -> None:
    for clients in (3, 70):
        empty = np.zeros((clients, 2), int)
        figure = pictures._holdings_figure(empty, _names("client", clients), ["a", "b"], "digits")
        _assert_nothing_is_cut(figure)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """Dollars are no mathematics, an underscore hides nothing, long names keep both ends, other scripts do no harm."""
    methods = ["_mine", "$x_1$ and $\\frac$", "participant-" * 9 + "end", "联邦"]
    title = "a study $5 {x} % " + "of many words " * 30
    clients = _clients(methods)
    figure = pictures._curves_figure(clients, title)
    assert figure.texts[0].get_text().endswith("accuracy by round")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[0] == "_mine"
    assert shown[1].replace("\\$", "$") == methods[1]
    assert (shown[2][:11], shown[2][-3:], len(shown[2])) == ("participant", "end", 32)
    pictures.draw_all(
        tmp_path,
        clients=clients,
        selected=_selected(clients, 4),
        counts=_counts(4, 3),
        client_names=methods,
        class_names=["$a$", "_b", "c\nd"],
        title=title,
    )
    _assert_nothing_is_cut(pictures._clients_figure(_clients(methods[:3]), _selected(clients, 4), title))
    _assert_nothing_is_cut(pictures._curves_figure(_clients(methods[:3]), title))
    _assert_nothing_is_cut(pictures._holdings_figure(_counts(3, 2), methods[:3], ["$a$", methods[2]], title))
