from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedali_simulations import load_scenario
from fedali_simulations.console import print_results
from fedali_simulations.environment import environment
from fedali_simulations.results import Results, to_markdown


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
            **{name: 0.9 if method == "fedali" else float("nan") for name in ("global", "global_f1")},
        }
        for method in ("fedali", "[bold]odd")
        for seed in (0, 1)
        for round_ in (1, 2)
        for client in ("a", "b")
    ]
    timing = pd.DataFrame({"method": ["fedali", "[bold]odd"], "cpu_seconds_per_round": [1.0, 2.0]})
    selected = {(method, seed): 2 for method in ("fedali", "[bold]odd") for seed in (0, 1)}
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
    assert "| fedali | 70.5 ± 0.7 | 70.5 | 40.5 ± 0.7 | 90.0 ± 0.0 |" in text
    assert "| [bold]odd | 70.5 ± 0.7 | 70.5 | 40.5 ± 0.7 | – |" in text
    assert "torch" in text
