from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from fedali_server.console import Console
from fedali_simulations import load_scenario
from fedali_simulations.environment import environment
from fedali_simulations.jobs import Progress
from fedali_simulations.report.console import Display, print_results, print_scenarios
from fedali_simulations.report.pace import Pace
from fedali_simulations.report.results import Results, to_markdown


@pytest.fixture
def results() -> Results:
    rows = [
        {
            "method": method,
            "seed": seed,
            "round": round_,
            "client": client,
            "test_samples": 10.0,
            **dict.fromkeys(
                ("validation", "personalisation", "personalisation_f1"), 0.5 + 0.01 * seed + 0.1 * round_
            ),
            **dict.fromkeys(("generalisation", "generalisation_f1"), 0.4 + 0.01 * seed),
            **{name: 0.9 if method == "fedali-paper" else float("nan") for name in ("global", "global_f1")},
        }
        for method in ("fedali-paper", "[bold]odd")
        for seed in (0, 1)
        for round_ in (1, 2)
        for client in ("a", "b")
    ]
    timing = pd.DataFrame({"method": ["fedali-paper", "[bold]odd"], "cpu_seconds_per_round": [1.0, 2.0]})
    selected = {(method, seed): 2 for method in ("fedali-paper", "[bold]odd") for seed in (0, 1)}
    scenario = load_scenario("digits", ["seeds=2"])
    return Results(scenario, Path("here"), pd.DataFrame(rows), selected, None, timing)


def test_the_table_fits_eighty_columns_uncut(results: Results) -> None:
    stream = io.StringIO()
    print_results(results, Console(file=stream, width=80))
    text = stream.getvalue()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "personalisation" in text
    assert "70.5 ± 0.7" in text
    assert "[bold]odd" in text


def test_the_markdown_table_says_what_it_was_measured_on(results: Results) -> None:
    text = to_markdown(results, environment())
    assert "| fedali-paper | 70.5 ± 0.7 | 70.5 | 40.5 ± 0.7 | 90.0 ± 0.0 |" in text
    assert "| [bold]odd | 70.5 ± 0.7 | 70.5 | 40.5 ± 0.7 | – |" in text
    assert "torch" in text


def ascii_file() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)


def written(file: io.TextIOWrapper) -> str:
    return file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [30, 80])
@pytest.mark.parametrize("plain", [False, True])
def test_the_table_survives_narrow_terminals_and_ascii(results: Results, width: int, plain: bool) -> None:
    file = ascii_file() if plain else io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    print_results(results, Console(file=file, width=width))
    text = file.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for word in ("personalisation", "70.5 +- 0.7" if plain else "70.5 ± 0.7", "[bold]odd"):
        assert word in text
    assert ("wider terminal" in text) == (width < 80)


def test_a_long_label_is_folded_and_takes_no_column_away(results: Results) -> None:
    results.clients["method"] = results.clients["method"].replace(
        "fedali-paper", "a-label-that-goes-on-and-on-and-on"
    )
    results.timing["method"] = results.timing["method"].replace(
        "fedali-paper", "a-label-that-goes-on-and-on-and-on"
    )
    for seed in (0, 1):
        results.selected["a-label-that-goes-on-and-on-and-on", seed] = 2
    file = ascii_file()
    print_results(results, Console(file=file, width=80))
    assert "a-label-that-goes-on-and" in written(file)
    assert "ductive" in written(file)
    assert max(map(len, written(file).splitlines())) <= 80


def test_lists_are_literal_too() -> None:
    file = ascii_file()
    print_scenarios(Console(file=file, width=30))
    assert "digits" in written(file)
    assert max(len(line.rstrip()) for line in written(file).splitlines()) <= 30


def test_without_a_terminal_progress_is_plain_lines_now_and_then(tmp_path: Path) -> None:
    file = ascii_file()
    scenario = load_scenario(
        "digits", ["seeds=2", "methods=fedavg", "training.rounds=3", "description='[red]x[/red] \x1b[2J ±'"]
    )
    with Display(scenario, tmp_path / "[b]", Console(file=file, width=30), lambda *_: "found 1 %") as display:
        for round_ in range(4):
            display.report(Progress("fedavg", 0, round_, 3, 0.5 if round_ else None))
        display.report(Progress("fedavg", 0, 3, 3, done=True))
    text = written(file)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "fedavg seed 0: round 0 of 3, 0 of 2 runs done\n" in text
    assert "fedavg seed 0: found 1 %\n" in text
    assert text.count("round ") == 1  # the others came within seconds


def test_who_interrupts_learns_how_to_go_on(tmp_path: Path) -> None:
    file = ascii_file()
    scenario = load_scenario("digits", [])
    with (
        pytest.raises(KeyboardInterrupt),
        Display(scenario, tmp_path / "[bold]", Console(file=file, width=30), lambda *_: ""),
    ):
        raise KeyboardInterrupt
    assert written(file).endswith(f"continue with: fedali simulate --resume {tmp_path}/[bold]\n")


@pytest.mark.parametrize(("terminal", "width"), [("dumb", 80), ("xterm", 80), ("xterm", 30)])
def test_bars_are_drawn_where_a_cursor_moves_and_there_is_room(
    tmp_path: Path, terminal: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    file = ascii_file()
    scenario = load_scenario("digits", ["methods=fedavg", "seeds=1", "training.rounds=3"])
    console = Console(file=file, width=width, force_terminal=True)
    drawn = terminal == "xterm" and width == 80
    with Display(scenario, tmp_path, console, lambda *_: "found 1 %") as display:
        display.report(Progress("fedavg", 0, 1, 3, 0.5))
        display.report(Progress("fedavg", 0, 3, 3, done=True))
    text = written(file)
    assert ("\x1b[2K" in text) == drawn
    assert ("3/3" in text) == drawn
    assert ("round 1 of 3" in text) == (not drawn)
    assert "\x1b[3" not in text


def test_what_is_left_follows_the_pace_and_not_what_was_there_before() -> None:
    now = [100.0]
    pace = Pace(20, clock=lambda: now[0])
    pace.note("a", 8)  # a run that goes on
    assert pace.left() is None
    now[0] = 106.0
    pace.note("a", 10)
    pace.note("b", 0)
    assert pace.left() == pytest.approx(30.0)  # 2 rounds took 6 s, 10 are left
