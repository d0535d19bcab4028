"""A run that a version before 0.3.0 began, whose method ``fedali`` was the paper's: resumed to the same bits, exported, compared."""

from __future__ import annotations

import pytest

from fedali_simulations import compare_runs, load_scenario, resume, simulate
from fedali_simulations.federate import exporting
from fedali_simulations.jobs import Job
from fedali_simulations.names_before import WRITTEN_BY
from fedali_simulations.run import run_job
from fedali_simulations.scenario import MethodSettings
from fedali_simulations.study import prepare
from fedali_simulations.template import to_toml

SMALL = [
    *(
        "partition.clients=5",
        "training.epochs=1",
        "evaluation.generalisation_every=1",
        "alp.num_prototypes=8",
    ),
    *("model.options.channels=[4, 8]", "seeds=1", "training.engine=loop", "evaluation.transductive=false"),
]


PAPERS = MethodSettings(name="fedali-paper", label="fedali")


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.name != "done.json"
    }


def _begun_by_0_2_0(folder, *methods):
    """A run that was killed after the first of two rounds of ``fedali``."""
    now = [PAPERS if method == "fedali" else MethodSettings(name=method) for method in methods]
    scenario = load_scenario("digits", [*SMALL, "training.rounds=2"]).model_copy(
        update={"methods": tuple(now)}
    )
    prepare(scenario, folder)
    first = scenario.training.model_copy(update={"rounds": 1})
    run_job(Job(scenario.model_copy(update={"training": first}), PAPERS, 0, folder / "fedali/seed-0"))
    (folder / "fedali/seed-0/done.json").unlink()
    text = (
        to_toml(scenario)
        .replace('name = "fedali-paper"', 'name = "fedali"')
        .replace('label = "fedali"', 'label = ""')
    )
    lines = text.splitlines(keepends=True)
    (folder / "scenario.toml").write_text("".join(line for line in lines if not line.startswith(WRITTEN_BY)))
    return scenario


def test_a_killed_run_of_before_is_resumed_to_the_same_bits(tmp_path):
    scenario = _begun_by_0_2_0(tmp_path / "run", "fedali")
    run_job(Job(scenario, PAPERS, 0, tmp_path / "whole"))
    assert list(resume(tmp_path / "run").table["method"].unique()) == ["fedali"]
    assert _files(tmp_path / "run/fedali/seed-0") == _files(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_of_before_is_compared_and_exported_as_it_was_meant(tmp_path):
    _begun_by_0_2_0(tmp_path / "run", "fedali", "fedavg")
    resume(tmp_path / "run")
    assert compare_runs([tmp_path / "run"]).methods == ["fedali", "fedavg"]
    bundle = exporting.export(tmp_path / "run", tmp_path / "m.fedali", method="fedali")
    assert bundle.manifest.method.name == "fedali-paper"
    assert bundle.manifest.method.options["strength"] == 0.2


def test_the_new_one_answers_by_the_gate_unless_it_is_told_otherwise(tmp_path):
    lines = "methods=fedali,fedali+trained"
    results = simulate("digits", overrides=[*SMALL, "training.rounds=1", lines], out=tmp_path / "run")
    rows = results.clients.set_index("client")
    scores = {title: rows[rows["method"] == title]["generalisation"] for title in rows["method"].unique()}
    assert list(scores) == ["fedali", "fedali+trained"]
    assert (tmp_path / "run/fedali/seed-0/done.json").exists()
    assert scores["fedali"].mean() > scores["fedali+trained"].mean()
