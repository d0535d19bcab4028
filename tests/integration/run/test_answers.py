"""What clients answer with, in whole simulations: training stays as it is, and what answers is what the name says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedali.errors import SettingsError
from fedali.methods import build_method
from fedali_simulations import load_scenario, simulate
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job

SMALL = [
    "partition.clients=5",
    "training.rounds=3",
    "training.epochs=1",
    "evaluation.generalisation_every=2",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "seeds=1",
]


def run(folder, method, *overrides, stop=None):
    scenario = load_scenario("digits", [*SMALL, f"methods={method}", *overrides])

    def report(progress):
        if stop is not None and progress.round == stop:
            raise KeyboardInterrupt

    run_job(Job(scenario, scenario.methods[0], 0, folder, 1), report)
    return folder


def metrics(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted((folder / "metrics").glob("*.parquet"))])


def shared(folder):
    return load_file(folder / "checkpoint.safetensors")["shared.theta"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("answers")
    lines = ["fedavg", "fedavg+shared", "fedavg+between", "fedavg+gate", "fedali-paper+gate", "fedali-paper"]
    lines += ["fedavg+neighbours"]
    return {line: run(place / line, line) for line in lines}


ANSWERS = ["fedavg+shared", "fedavg+between", "fedavg+gate", "fedavg+neighbours", "fedali-paper+gate"]


@pytest.mark.parametrize("line", ANSWERS)
def test_training_is_that_of_the_method(runs, line):
    plain = shared(runs[line.partition("+")[0]])
    assert np.array_equal(shared(runs[line])[: plain.size], plain)


def test_who_answers_with_the_shared_model_is_as_good_as_that(runs):
    plain, asked = metrics(runs["fedavg"]), metrics(runs["fedavg+shared"])
    for round_ in (2, 3):
        one = plain[plain["round"] == round_].set_index("client")
        other = asked[asked["round"] == round_].set_index("client")
        assert (one["global"] == other["personalisation"]).all()
        assert other["generalisation"].nunique() == 1
    assert "generalisation" not in asked.columns or asked[asked["round"] == 1]["generalisation"].isna().all()


def test_the_gate_is_good_on_everyones_data_and_on_its_own(runs):
    for method in ("fedavg", "fedali-paper"):
        last = {
            line: metrics(runs[line])[lambda rows: rows["round"] == 3] for line in (method, f"{method}+gate")
        }
        plain, gated = last[method], last[f"{method}+gate"]
        assert gated["generalisation"].mean() > plain["generalisation"].mean() + 0.03
        assert gated["personalisation"].mean() > plain["personalisation"].mean() - 0.05
        assert (gated[["personalisation", "generalisation", "validation"]].to_numpy() <= 1).all()


def test_memories_are_mixed_in_where_validation_says_that_they_help(runs):
    """Leaving them out is one of the choices: no client is worse on its validation data for having them."""
    alone, asked = metrics(runs["fedavg+shared"]), metrics(runs["fedavg+neighbours"])
    for round_ in (1, 2, 3):
        one = alone[alone["round"] == round_].set_index("client")
        other = asked[asked["round"] == round_].set_index("client")
        assert (other["validation"] >= one["validation"]).all()
    assert other["personalisation"].mean() > one["personalisation"].mean()


def test_everybodys_prototypes_are_sent_and_averaged(runs):
    plain = shared(runs["fedavg"]).size
    gate = shared(runs["fedavg+gate"])[plain:].reshape(64, -1)
    assert np.isfinite(gate).all()
    assert len(np.unique(gate, axis=0)) == 64
    assert gate.std(0).min() > 0


@pytest.mark.parametrize("line", ["fedavg+gate", "fedavg+between", "fedavg+neighbours"])
def test_interrupted_and_resumed_it_has_the_bits_of_an_uninterrupted_run(runs, tmp_path, line):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "again", line, stop=2)
    run(tmp_path / "again", line)
    pd.testing.assert_frame_equal(metrics(tmp_path / "again"), metrics(runs[line]), check_exact=True)
    assert np.array_equal(shared(tmp_path / "again"), shared(runs[line]))


def test_clients_that_sit_a_round_out_have_no_answer_and_held_out_ones_adapt(tmp_path):
    folder = run(tmp_path / "run", "fedavg+gate", "training.participation=0.5", "evaluation.unseen_clients=1")
    rows = metrics(folder)
    assert rows[rows["round"] == 3]["personalisation"].notna().sum() == 2
    assert rows[rows["round"] == 3]["global"].notna().sum() == 4


def test_a_table_of_answers(tmp_path):
    results = simulate(
        "digits", overrides=[*SMALL, "methods=fedavg,fedavg+gate", "sites=2"], out=tmp_path / "run"
    )
    assert {"fedavg", "fedavg+gate"} == set(results.table["method"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fedavg+gat", "cannot answer by 'gat'; did you mean 'gate'"),
        ("fedper+gate", r"fedper.*head\.\* never leave the clients, so that there is no shared model"),
        ("local+between", "there is no shared model"),
    ],
)
def test_an_answer_that_cannot_be_is_one_line(name, said):
    with pytest.raises(SettingsError, match=said):
        build_method(name)
