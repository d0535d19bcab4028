"""A search over real trainings, small: three clients, a few features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedali.errors import CheckpointError, SettingsError
from fedali_simulations import load_scenario
from fedali_simulations.comparing.asked import asked_for, one_line
from fedali_simulations.data import load_federation
from fedali_simulations.jobs import Progress
from fedali_simulations.tuning.search import Search
from fedali_simulations.tuning.space import Range, space_of
from fedali_simulations.tuning.tuning import begin, go_on, read

SEEDS = (1000, 1001)
SETTINGS = {
    "name": "small",
    "methods": ["fedprox", "fedali-paper"],
    "split": {"order": "time"},
    "model": {"name": "mlp", "options": {"hidden": [8]}},
    "training": {"rounds": 2, "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "engine": "loop"},
}


@pytest.fixture
def source(tmp_path):
    return made(tmp_path / "mine.npz")


def made(path: Path, *, tests: int = 0) -> Path:
    """Three clients of 60 samples in time; ``tests``: of a seed that draws the last 18 of each anew."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(180, 5)).astype(np.float32), np.tile(np.arange(3), 60)
    x[:, :3] += 1.5 * np.eye(3)[y]
    client = np.repeat(np.arange(3), 60)
    late = np.arange(180) % 60 >= 42
    if tests:
        x[late] = np.random.default_rng(tests).normal(size=(int(late.sum()), 5))
    start = np.arange(180) % 60
    np.savez(path, x=x, y=y, client=client, recording=client, start=start)
    return path


def scenario_of(source, method="fedprox", **changes):
    return one_line(load_scenario({**SETTINGS, "data": {"source": str(source)}, **changes}), method)


def wanted(scenario, budget=6, **changes):
    space = space_of(scenario, scenario.methods[0])
    return Search(**{"budget": budget, "seeds": SEEDS, "measure": "both", "space": space, **changes})


def run(source, folder, method="fedprox", workers=1, report=lambda _: None, **changes):
    scenario = scenario_of(source, method)
    return go_on(begin(scenario, wanted(scenario, **changes), folder), workers=workers, report=report)


def test_a_search_finds_a_scenario_that_can_be_compared(source, tmp_path):
    found = run(source, tmp_path / "a")
    assert len(found.trials) == 6
    assert found.trials[0].settings == {"training.learning_rate": 0.01, "options.mu": 0.1}
    assert found.best.value == max(trial.value for trial in found.trials) >= found.trials[0].value
    text = (tmp_path / "a/found.toml").read_text()
    assert "# Seeds 1000, 1001 were used for this and are not to be reported. No test data were read." in text
    back = load_scenario(str(tmp_path / "a/found.toml"))
    assert back == found.found
    (line,) = back.methods
    assert back.training_for(line).learning_rate == found.best.settings["training.learning_rate"]
    assert line.options["mu"] == found.best.settings["options.mu"]
    assert (back.seed, back.seeds, back.evaluation.on) == (0, 1, "test")
    rows = (tmp_path / "a/trials.csv").read_text().splitlines()
    assert rows[0] == "trial,value,diverged,training.learning_rate,options.mu"
    assert len(rows) == 7


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("rounds", [1, 9, 17])
def test_stopped_at_any_moment_it_finds_the_same(source, tmp_path, rounds):
    whole = run(source, tmp_path / "whole")
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if sum(one.round > 0 for one in seen) == rounds:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(source, tmp_path / "cut", report=stop)
    assert not (tmp_path / "cut/found.toml").exists()
    again: list[Progress] = []
    cut = go_on(tmp_path / "cut", workers=1, report=again.append)
    assert cut.trials == whole.trials
    assert cut.found == whole.found
    finished = {(one.label, one.seed) for one in seen if one.done}
    assert not any(one.round > 0 and not one.done for one in again if (one.label, one.seed) in finished)


def test_workers_change_nothing(source, tmp_path):
    one = run(source, tmp_path / "one", budget=3)
    two = run(source, tmp_path / "two", budget=3, workers=2)
    assert one.trials == two.trials


def test_no_test_sample_is_read(tmp_path):
    """Other tests, the same search; other validation samples would give another one."""
    before, after = made(tmp_path / "before.npz"), made(tmp_path / "after.npz", tests=5)
    usual = [load_federation(scenario_of(path), 0) for path in (before, after)]
    for one, other in zip(usual[0].clients, usual[1].clients, strict=True):
        np.testing.assert_array_equal(one.x_train, other.x_train)
        np.testing.assert_array_equal(one.x_validation, other.x_validation)
        assert not np.array_equal(one.x_test, other.x_test)
    found = [run(path, tmp_path / path.stem, budget=3) for path in (before, after)]
    assert found[0].trials == found[1].trials


def test_methods_that_were_tuned_apart_are_compared_together(source, tmp_path):
    for method in ("fedprox", "fedali-paper"):
        run(source, tmp_path / method, method, budget=2)
    files = [str(tmp_path / method / "found.toml") for method in ("fedprox", "fedali-paper")]
    asked = asked_for(files, None, 5, [], None)
    assert [line.title for line in asked.methods] == ["fedprox", "fedali-paper"]
    for line, file in zip(asked.methods, files, strict=True):
        alone = load_scenario(file)
        assert asked.training_for(line) == alone.training_for(alone.methods[0])
        assert asked.alp_for(line) == alone.alp_for(alone.methods[0])
    with pytest.raises(SettingsError, match=r"training.rounds is 2 there and 3 here"):
        asked_for(
            [
                files[0],
                scenario_of(
                    source, "fedali-paper", training={**SETTINGS["training"], "rounds": 3}
                ).model_dump(),
            ],
            None,
            5,
            [],
            None,
        )


def test_another_base_moves_into_the_line(source):
    one = scenario_of(source).model_dump(mode="json")
    other = scenario_of(
        source, "fedali-paper", training={**SETTINGS["training"], "learning_rate": 0.5}, alp={"scale": 4.0}
    )
    asked = asked_for([one, other.model_dump(mode="json")], None, 5, [], None)
    assert asked.training_for(asked.methods[1]).learning_rate == 0.5
    assert asked.training_for(asked.methods[0]).learning_rate == 0.01
    assert asked.alp_for(asked.methods[1]).scale == 4.0


def test_settings_that_diverge_are_the_worst(source, tmp_path):
    sgd = {**SETTINGS["training"], "optimizer": "sgd", "momentum": 0.0}
    scenario = scenario_of(source, training=sgd)
    space = {"training.learning_rate": Range(0.005, 1e30)}
    folder = begin(scenario, wanted(scenario, space=space, budget=4), tmp_path / "wild")
    found = go_on(folder, workers=1, report=lambda _: None)
    assert not found.trials[0].diverged
    diverged = [trial for trial in found.trials if trial.diverged]
    assert diverged
    assert all(trial.value == 0 for trial in diverged)
    assert not found.best.diverged
    space = {"training.learning_rate": Range(1e20, 1e30)}
    folder = begin(scenario, wanted(scenario, space=space, budget=2), tmp_path / "wilder")
    with pytest.raises(SettingsError, match=r"every trial of .* diverged"):
        go_on(folder, workers=1, report=lambda _: None)


def test_what_cannot_be_searched_is_one_line(source, tmp_path):
    scenario = scenario_of(source)
    with pytest.raises(SettingsError, match="seeds 0, 1 are among those that the scenario reports"):
        begin(scenario, wanted(scenario, seeds=(0, 1)), tmp_path / "a")
    none = scenario_of(source, split={"train": 0.7, "validation": 0.0, "test": 0.3})
    with pytest.raises(SettingsError, match=r"set split.validation above 0"):
        begin(none, wanted(none), tmp_path / "a")
    with pytest.raises(CheckpointError, match="holds no search"):
        read(tmp_path)
    folder = begin(scenario, wanted(scenario, budget=1), tmp_path / "a")
    with pytest.raises(SettingsError, match="holds a search or a run already"):
        begin(scenario, wanted(scenario), folder)
    go_on(folder, workers=1, report=lambda _: None)
    trials = json.loads((folder / "trials.json").read_text())
    trials[0]["settings"]["options.mu"] = 0.3
    (folder / "trials.json").write_text(json.dumps(trials))
    with pytest.raises(CheckpointError, match="which draws other trials"):
        go_on(folder, workers=1, report=lambda _: None)


def test_a_method_without_the_accuracy_that_is_wanted_is_one_line(source, tmp_path):
    scenario = scenario_of(source, "fedper")
    folder = begin(scenario, wanted(scenario, measure="global", budget=1), tmp_path / "a")
    with pytest.raises(SettingsError, match="fedper has no global accuracy: choose another --measure"):
        go_on(folder, workers=1, report=lambda _: None)
