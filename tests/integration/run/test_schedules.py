"""Runs with a schedule of the learning rate, and runs that stop when validation is no better."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedali_simulations import load_scenario
from fedali_simulations.jobs import Job
from fedali_simulations.metrics import MetricsFiles
from fedali_simulations.run import run_job
from fedali_simulations.setup import build_setup
from fedali_simulations.study import collect
from tests.integration.run.test_simulate import SMALL, _files, _run

COSINE = (
    *("training.schedule=cosine", "training.schedule_rounds=3", "training.warmup_rounds=1"),
    *("training.weight_decay=0.1", "training.clip_norm=0.5", "model.name=mlp", "model.options={hidden=[8]}"),
)
STILL = "training.learning_rate=1e-12"  # validation is as good in the first round as in any


def test_resumed_in_the_middle_of_a_cosine_gives_the_same_bits(tmp_path):
    expected = _files(_run(tmp_path / "whole", *COSINE, method="fedavg"))
    assert _files(_run(tmp_path / "other", *COSINE[3:], method="fedavg")) != expected
    folder = tmp_path / "two"
    _run(folder, *COSINE, "training.rounds=2", method="fedavg")
    (folder / "done.json").unlink()
    assert _files(_run(folder, *COSINE, method="fedavg")) == expected


def test_a_round_has_its_rate_and_a_newcomer_the_whole_one():
    scenario = load_scenario("digits", [*SMALL, *COSINE, "methods=fedavg"])
    setup = build_setup(scenario, scenario.methods[0], 0)
    plain = load_scenario("digits", [*SMALL, *COSINE[3:], "methods=fedavg"])
    (site,), (whole,) = setup.sites, build_setup(plain, plain.methods[0], 0).sites

    def moved(site, round_, sets=None):
        (result,) = site._train([0], round_, setup.initial, sets)
        return np.linalg.norm(result.theta - setup.initial.theta)

    assert [scenario.training.rates.factor(round_) for round_ in (1, 2, 3)] == [0.5, 1.0, 0.5]
    assert moved(site, 1) < 0.7 * moved(whole, 1)
    assert moved(site, 2) == moved(whole, 2)
    everything = [site.cohort.train[0]]
    assert moved(site, 3, everything) == moved(whole, 3, everything)


@pytest.mark.parametrize("method", ["fedper", "pooled"])
def test_a_run_stops_when_validation_is_no_better_and_says_so(tmp_path, method):
    overrides = (
        *COSINE[5:],
        STILL,
        "training.rounds=9",
        "training.patience=2",
        "evaluation.unseen_clients=1",
    )
    scenario = load_scenario("digits", [*SMALL, *overrides, f"methods={method}"])
    folder = tmp_path / method / "seed-0"
    run_job(Job(scenario, scenario.methods[0], 0, folder))
    done = json.loads((folder / "done.json").read_text())
    assert (done["rounds"], done["best_round"]) == (3, 1)
    files = _files(folder)
    assert MetricsFiles(folder).read_unseen() is not None
    assert method == "pooled" or len(list((folder / "personal").iterdir())) == 4
    (folder / "done.json").unlink()  # killed just before its end
    run_job(Job(scenario, scenario.methods[0], 0, folder))
    assert json.loads((folder / "done.json").read_text())["rounds"] == 3
    assert _files(folder) == files
    results = collect(scenario, tmp_path)
    assert results.table["rounds"].tolist() == [3.0] * 3
    assert results.stopped == f"Rounds until validation was no better, a number a seed: {method} after 3."


def test_only_rounds_that_measure_everything_end_a_run(tmp_path):
    overrides = [*COSINE[5:], STILL, "training.patience=1", "training.rounds=8"]
    folder = _run(tmp_path / "run", *overrides, "evaluation.generalisation_every=3", method="fedavg")
    done = json.loads((folder / "done.json").read_text())
    assert (done["rounds"], done["best_round"]) == (6, 3)  # chosen in 3, looked at again in 6
