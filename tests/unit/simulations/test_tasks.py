"""Simulations of other tasks than classification, on real and generated data of scikit-learn."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, make_multilabel_classification

from fedali.errors import FedaliError, SettingsError
from fedali_simulations import load_scenario, simulate
from fedali_simulations.data import load
from fedali_simulations.federate.running import prepare_scenario
from fedali_simulations.jobs import identity
from fedali_simulations.setup import build_plan

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = {
    "model": {"name": "mlp", "options": {"hidden": [16]}},
    "split": {"order": "random"},
    "training": {"engine": "loop", "rounds": 3, "epochs": 2, "batch_size": 16, "learning_rate": 0.005},
}


def diabetes(path):
    """Diabetes by age group: progression and body mass in odd units."""
    found = load_diabetes()
    who = np.digitize(found.data[:, 0], np.quantile(found.data[:, 0], [1 / 3, 2 / 3]))
    y = np.stack([found.target, 1000 + 100 * found.data[:, 2]], 1)
    np.savez(path, x=(20 * found.data).astype(np.float32), y=y, client=who, target_names=["progress", "mass"])
    task = {"name": "regression", "options": {"error": "huber", "units": ["points", "g"]}}
    return {**SMALL, "name": "diabetes", "data": {"source": str(path)}, "task": task}


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression")
    scenario = diabetes(folder / "diabetes.npz") | {"methods": ["fedali", "fedavg", "pooled"]}
    return simulate(scenario, out=folder / "run", workers=1)


def test_regression_learns_and_tells_errors_in_units(regression):
    table = regression.table.set_index(["method", "measure"])
    assert {"nrmse", "r2"} <= set(table)
    assert not {"accuracy", "macro_f1"} & set(table)
    rows = regression.clients
    for method in ("fedali", "fedavg", "pooled"):
        mine = rows[rows["method"] == method].groupby("round")["validation"].mean()
        assert mine.iloc[-1] < 0.9  # standard deviations; the mean of all reaches 1
        assert mine.iloc[-1] < mine.iloc[0]
        assert regression.selected[method, 0] == mine.idxmin()
    found = regression.targets.set_index(["method", "measure", "target"])
    raw = load_diabetes().target
    line = found.loc["fedavg", "personalisation", "progress"]
    assert 0.3 * raw.std() < line["mae"] < line["rmse"] < raw.std()
    assert found.loc["fedavg", "personalisation", "mass"]["unit"] == "g"
    chosen = rows[(rows["method"] == "fedavg") & (rows["round"] == regression.selected["fedavg", 0])]
    assert line["rmse"] == pytest.approx(chosen["personalisation_rmse_progress"].mean())


def test_what_a_regression_leaves_is_complete(regression):
    names = {path.name for path in regression.folder.iterdir()}
    assert {"table.csv", "table.md", "targets.csv", "curves.png", "clients.png", "holdings.png"} <= names
    assert "RMSE in standard deviations, less is better" in (regression.folder / "table.md").read_text()
    assert "train_error" in regression.clients
    assert "personalisation_ece" not in regression.clients


def test_comparing_knows_that_less_is_better(regression):
    from fedali_simulations import compare_runs

    comparison = compare_runs([regression.folder], "fedavg")
    row = comparison.row("personalisation", "pooled")
    assert row["better"] == "less"
    assert row["unit"] == "index"
    assert (row["gain"] > row["lose"]) == (row["difference"] < 0)
    mine = comparison.rows[comparison.rows["measure"] == "personalisation"]
    assert mine.loc[mine["mean"].idxmin(), "rank"] == mine["rank"].min()


def test_labels_that_go_together_are_learnt(tmp_path):
    x, y = make_multilabel_classification(300, n_features=12, n_classes=3, random_state=0)
    np.savez(tmp_path / "labels.npz", x=x.astype(np.float32), y=y, client=np.arange(300) % 4)
    scenario = {
        **SMALL,
        "methods": ["fedali"],
        "data": {"source": str(tmp_path / "labels.npz")},
        "task": "multi-label",
        "evaluation": {"unseen_clients": 1, "unseen_samples": [0, 5]},
    }
    found = simulate(scenario, out=tmp_path / "run", workers=1)
    line = found.table.set_index("measure").loc["personalisation"]
    assert line["micro_f1"] > 0.7
    assert line["label_accuracy"] > 0.6
    assert 0 < line["subset_accuracy"] < line["label_accuracy"]
    rows = found.clients
    assert (rows["generalisation_perfect"] > 0).all()
    assert found.moments == ["before", "after_0", "after_5", "after"]
    assert (found.unseen[found.moments] > 0).all().all()


def test_targets_of_a_csv_are_of_whole_windows(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(240, 2))
    rows = [
        f"{who},{a:.6f},{b:.6f},{a + b:.6f}"
        for who, (a, b) in zip(np.repeat([*"abcd"], 60), values, strict=True)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["client,x,z,force", *rows]))
    columns = {"target": ["force"]}
    data = {"source": str(tmp_path / "rows.csv"), "window": 4, "stride": 4, "columns": columns}
    dataset, federation = load(load_scenario({"data": data, "task": "regression"}), 0)
    assert dataset.channel_names == ("x", "z")
    assert dataset.class_names == ("force",)
    np.testing.assert_allclose(dataset.y[:, 0], dataset.x.sum(2).mean(1), atol=1e-3)
    train = np.concatenate([client.y_train for client in federation.clients])
    assert abs(train.mean()) < 1e-6
    assert train.std() == pytest.approx(1, abs=1e-5)
    with pytest.raises(FedaliError, match=r"say which columns hold them: data\.columns\.target"):
        load(load_scenario({"data": data | {"columns": None}, "task": "regression"}), 0)
    with pytest.raises(FedaliError, match=r"data\.columns\.target is for tasks of numbers"):
        load(load_scenario({"data": data}), 0)


def test_what_does_not_go_together_is_refused(tmp_path):
    scenario = diabetes(tmp_path / "diabetes.npz")
    for changed, words in (
        ({"methods": "fedproto"}, "method 'fedproto' goes by classes"),
        ({"methods": "forest"}, "forest goes by classes"),
        ({"methods": "fedavg+neighbours"}, "'neighbours' goes by classes"),
        ({"task": {"name": "regression", "options": {"units": ["g"]}}}, "1 words for 2 targets"),
        ({"task": "multi-label"}, "y of row 0 has 151.0 where 0 or 1 has to be"),
        ({"data": {"source": "digits"}}, "digits has classes to learn, and task 'regression' learns numbers"),
    ):
        with pytest.raises(FedaliError, match=words):
            simulate(scenario | changed, out=tmp_path / "run", workers=1)


def test_a_run_over_devices_is_refused_before_it_begins(tmp_path):
    scenario = load_scenario(diabetes(tmp_path / "diabetes.npz"))
    with pytest.raises(SettingsError, match="task 'regression': devices of a federation report accuracy"):
        prepare_scenario(scenario, tmp_path / "run", {}, None)
    assert not (tmp_path / "run").exists()


def test_a_task_that_is_the_default_is_no_part_of_a_jobs_hash():
    plain = load_scenario("digits")
    line = plain.methods[0]
    said = load_scenario("digits", ["task.name=classification"])
    smooth = load_scenario("digits", ["task.options.label_smoothing=0.1"])
    assert identity(plain, line, 0) == identity(said, line, 0) != identity(smooth, line, 0)
    with pytest.raises(SettingsError, match="task: unknown task 'regresion'; did you mean 'regression'"):
        load_scenario("digits", ["task=regresion"])


def test_balanced_weights_are_of_all_training_samples():
    plan = build_plan(
        load_scenario("digits", ["task.options.class_weights=balanced", "partition.clients=3"]),
        load_scenario("digits").methods[0],
        0,
    )
    counts = np.bincount(np.concatenate([client.y_train for client in plan.federation.clients]))
    np.testing.assert_allclose(plan.task.class_weights, counts.sum() / (10 * counts), rtol=1e-5)


@pytest.mark.parametrize(("example", "method"), [("regression", "pooled"), ("own_task", "fedavg")])
def test_examples_run(example, method, tmp_path, monkeypatch, capsys):
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("regression", "own_task"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.import_module(example).main(rounds=1)
    printed = capsys.readouterr().out
    assert f"{method} personalisation progression points" in " ".join(printed.split())
    assert (next((tmp_path / "runs").iterdir()) / "targets.csv").exists()
