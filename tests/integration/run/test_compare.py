"""Comparisons of real runs, small: scanned digits, three seeds."""

from __future__ import annotations

import io
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from fedali.errors import CheckpointError, SettingsError
from fedali.methods import Trained, build_method
from fedali_server.console import Console
from fedali_simulations import compare_runs, load_scenario, simulate
from fedali_simulations.comparing.asked import asked_for
from fedali_simulations.comparing.costs import message_bytes
from fedali_simulations.comparing.files import to_latex, write_comparison
from fedali_simulations.comparing.show import print_comparison
from fedali_simulations.scenario import MethodSettings
from fedali_simulations.setup import build_untrained
from fedali_simulations.study import prepare

SMALL = [
    "partition.clients=5",
    "training.rounds=2",
    "training.epochs=1",
    "evaluation.generalisation_every=1",
    "evaluation.transductive=false",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "seeds=3",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders: both methods together, each alone."""
    folder = tmp_path_factory.mktemp("runs")
    for name, methods in (("both", "fedavg,fedper"), ("one", "fedavg"), ("other", "fedper")):
        simulate("digits", overrides=[*SMALL, f"methods={methods}"], out=folder / name, workers=1)
    return folder


def test_runs_side_by_side_are_as_one_run(runs):
    both, two = compare_runs([runs / "both"]), compare_runs([runs / "one", runs / "other"])
    costs = both.rows["measure"] == "compute"
    pd.testing.assert_frame_equal(two.rows[~costs], both.rows[~costs])
    assert (both.methods, both.against, both.seeds, both.clients) == (
        ["fedavg", "fedper"],
        "fedavg",
        [0, 1, 2],
        5,
    )
    assert both.ratio.value == pytest.approx(0.3 / 0.5, abs=0.06)
    table = pd.read_csv(runs / "both/table.csv").set_index(["measure", "method"])
    assert both.row("personalisation", "fedper")["mean"] == pytest.approx(
        table.loc[("personalisation", "fedper"), "accuracy"]
    )
    assert compare_runs([runs / "both"], "fedper").row("personalisation", "fedavg")[
        "difference"
    ] == pytest.approx(-both.row("personalisation", "fedper")["difference"])


def test_the_same_run_again_does_not_differ(runs, tmp_path):
    simulate("digits", overrides=[*SMALL, "methods=fedavg"], out=tmp_path / "again", workers=1)
    found = compare_runs([runs / "one", tmp_path / "again"])
    assert found.methods == [f"fedavg ({runs / 'one'})", f"fedavg ({tmp_path / 'again'})"]
    for measure in found.accuracies:
        row = found.row(measure.name, found.methods[1])
        assert (row["difference"], row["p_t"], row["p_wilcoxon"], row["differs"]) == (0, 1, 1, False)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("training.rounds=1", "training.rounds is 2 there and 1 here"),
        ("seeds=2", "seeds is 3 there and 2 here"),
        ("split.test=0.2", "split.validation is 0.2 there and 0.3 here"),
        ("partition.alpha=5.0", "partition.alpha is 0.5 there and 5.0 here"),
        ("model.options.channels=[4, 4]", r"model.options.channels is \[4, 8\]"),
        ("data.source=mine.npz", "their data differ in clients"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(runs, tmp_path, monkeypatch, change, what):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.random((300, 1, 8, 8), dtype=np.float32),
        "y": np.arange(300) % 10,
        "client": np.zeros(300, int),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    extra = ["split.validation=0.3"] if "split.test" in change else []
    kept = [c for c in SMALL if c.partition("=")[0] != change.partition("=")[0]]
    prepare(load_scenario("digits", [*kept, "methods=fedper", change, *extra]), tmp_path / "there")
    with pytest.raises(SettingsError, match=f"cannot be compared: {what}"):
        compare_runs([runs / "one", tmp_path / "there"])


def test_a_lines_own_learning_rate_is_no_other_budget_and_is_said(runs, tmp_path):
    own = {"name": "fedavg", "label": "slow", "training": {"learning_rate": 1e-5, "epochs": 2}}
    settings = load_scenario("digits", SMALL).model_dump(mode="json") | {"methods": [own, "fedavg"]}
    simulate(settings, out=tmp_path / "slow", workers=1)
    found = compare_runs([tmp_path / "slow"])
    assert "slow trains with epochs 2, learning_rate 1e-05" in found.notes
    assert found.row("personalisation", "fedavg")["difference"] > 0.05
    plain = compare_runs([runs / "one", tmp_path / "slow"])
    assert plain.row("personalisation", f"fedavg ({tmp_path / 'slow'})")["difference"] == 0


def test_what_is_not_complete_or_no_run_is_one_line(runs, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        compare_runs([tmp_path])
    (tmp_path / "scenario.toml").write_text((runs / "both/scenario.toml").read_text())
    with pytest.raises(CheckpointError, match=r"is not complete: .* Continue with --resume"):
        compare_runs([tmp_path])


def test_runs_of_other_machines_and_of_devices(runs, tmp_path):
    shutil.copytree(runs / "both", tmp_path / "both")
    (tmp_path / "both/machines.json").write_text("{}")
    found = compare_runs([tmp_path / "both"])
    assert "compute" not in set(found.rows["measure"])
    assert "bytes up" in set(found.rows["measure"])
    (tmp_path / "both/federation.json").write_text("{}")
    with pytest.raises(SettingsError, match="is a run over devices"):
        compare_runs([tmp_path / "both"])


def test_the_terminal_shows_all_of_it_in_eighty_columns(runs):
    stream = io.StringIO()
    print_comparison(compare_runs([runs / "both"]), Console(file=stream, width=80))
    text = stream.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    for word in (
        "personalisation, %",
        "generalisation, %",
        "global, %",
        "difference",
        "gain",
        "clients",
        "seeds",
        "Gini",
    ):
        assert word in text, word
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True)
    print_comparison(compare_runs([runs / "both"]), Console(file=narrow, width=50))
    lines = narrow.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in lines) <= 50


def test_every_file_has_the_same_numbers(runs, tmp_path):
    found = compare_runs([runs / "both"])
    write_comparison(found, tmp_path)
    row = found.row("personalisation", "fedper")
    csv = pd.read_csv(tmp_path / "compare.csv")
    pd.testing.assert_frame_equal(csv, found.rows, check_dtype=False)
    parquet = pd.read_parquet(tmp_path / "compare.parquet")
    pd.testing.assert_frame_equal(parquet, found.rows, check_dtype=False)
    known = json.loads((tmp_path / "compare.json").read_text())
    (same,) = [r for r in known["rows"] if (r["measure"], r["method"]) == ("personalisation", "fedper")]
    assert same["difference"] == pytest.approx(row["difference"])
    assert same["p_wilcoxon_holm"] == pytest.approx(row["p_wilcoxon_holm"])
    mean, half = 100 * row["mean"], 50 * (row["high"] - row["low"])
    assert f"| fedper | {mean:.1f} ± {half:.1f} |" in (tmp_path / "compare.md").read_text()
    tex = (tmp_path / "compare.tex").read_text()
    assert f"{mean:.1f} $\\pm$ {half:.1f}" in tex
    assert (
        tex.count(r"\begin{tabular}")
        == tex.count(r"\bottomrule")
        == len(found.accuracies) + len(found.groups)
    )


def test_latex_takes_any_name(runs):
    found = compare_runs([runs / "both"])
    odd = found.rows.assign(method=found.rows["method"].replace("fedper", r"50% of_a & b\{#}"))
    text = to_latex(type(found)(**{**vars(found), "rows": odd}))
    assert r"50\% of\_a \& b\textbackslash{}\{\#\} & " in text
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = block.index("}") - 1
        rows = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert all(line.replace(r"\&", "").count("&") == columns - 1 for line in rows), block


@pytest.mark.parametrize(
    "name", ["fedavg", "fedper", "local", "scaffold", "fedproto", "fedali-paper", "fedali-kmeans", "ditto"]
)
def test_bytes_are_those_of_what_a_client_sends(name):
    scenario = load_scenario("digits", SMALL)
    down, up = message_bytes(scenario, MethodSettings(name=name), (1, 8, 8), 10)
    untrained = build_untrained(scenario, MethodSettings(name=name), 0, (1, 8, 8), 10)
    rng = np.random.default_rng(0)
    theta, prototypes = (
        rng.normal(size=v.size).astype(np.float32)
        for v in (untrained.initial.theta, untrained.initial.prototypes)
    )
    upload = build_method(name).upload(Trained(theta, prototypes, 7), untrained.initial, untrained.layouts)
    arrays = upload.to_arrays()
    sent = sum(array.size for key, array in arrays.items() if key in ("theta", "prototypes", "sets"))
    assert up == 4 * sent
    assert down >= up
    assert (name == "local") == (down == 0)


def test_what_is_asked_for_becomes_a_scenario():
    own = {"name": "fedprox", "label": "near", "options": {"mu": 1.0}}
    settings = load_scenario("digits").model_dump(mode="json") | {"methods": ["fedavg", own], "seeds": 2}
    found = asked_for([settings], "near,fedper,near", None, [], None)
    assert [line.title for line in found.methods] == ["near", "fedper"]
    assert found.methods[0].options == {"mu": 1.0}
    assert found.seeds == 5
    assert asked_for([settings], None, None, ["seeds=2"], None).seeds == 2
    assert asked_for([settings], None, 3, [], "near").seeds == 3
    for words, message in (
        ({"methods": "near,fedpox"}, "unknown method 'fedpox'; did you mean 'fedprox'"),
        ({"methods": "near"}, "two methods at least, not near"),
        ({"against": "fedper"}, "no method 'fedper' to compare with"),
    ):
        with pytest.raises(SettingsError, match=message):
            asked_for([settings], words.get("methods"), None, [], words.get("against"))


def test_unseen_clients_are_compared_too(tmp_path):
    changes = [*SMALL, "methods=fedavg,local", "evaluation.unseen_clients=2", "seeds=2"]
    results = simulate(
        "digits", overrides=[c for c in changes if c != "seeds=3"], out=tmp_path / "run", workers=2
    )
    found = compare_runs([tmp_path / "run"])
    assert results.unseen is not None
    means = results.unseen.groupby("method")["after"].mean()
    for method in ("fedavg", "local"):
        assert found.row("unseen after", method)["mean"] == pytest.approx(means[method])
    assert not math.isnan(found.row("unseen before", "local")["p_t"])
