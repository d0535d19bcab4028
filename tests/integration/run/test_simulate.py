"""Whole simulations in this process, small but real: scanned digits, real training."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedali.errors import CheckpointError, DataError, FedaliError, SettingsError
from fedali_simulations import load_scenario, resume, simulate
from fedali_simulations.data import load_federation
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job
from fedali_simulations.setup import build_setup

SMALL = [
    "partition.clients=5",
    "training.rounds=3",
    "training.epochs=1",
    "evaluation.generalisation_every=1",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "seeds=1",
]


def _run(folder, *overrides, method="fedali-paper", seed=0, workers=1):
    scenario = load_scenario("digits", [*SMALL, f"methods={method}", *overrides])
    run_job(Job(scenario, scenario.methods[0], seed, folder, workers))
    return folder


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "done.json"  # that one holds timings
    }


def test_the_folder_holds_everything(tmp_path):
    results = simulate(
        "digits", overrides=[*SMALL, "methods=fedali-paper,fedper"], out=tmp_path / "run", workers=2
    )
    folder = tmp_path / "run"
    for name in (
        "scenario.toml",
        "environment.json",
        "results.json",
        "table.csv",
        "table.md",
        "curves.png",
        "clients.png",
    ):
        assert (folder / name).stat().st_size > 100, name
    for line in ("fedali-paper", "fedper"):
        run = folder / line / "seed-0"
        assert len(list((run / "personal").glob("*.safetensors"))) == 5
        assert {"checkpoint.safetensors", "best.safetensors", "done.json"} <= {p.name for p in run.iterdir()}
    assert not list(folder.rglob(".*")), "no temporary file is left"
    personal = load_file(folder / "fedper/seed-0/personal/client-1.safetensors")
    other = load_file(folder / "fedper/seed-0/personal/client-2.safetensors")
    assert not np.allclose(personal["head.weight"], other["head.weight"])
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert load_scenario(folder / "scenario.toml") == results.scenario


def test_the_table_is_what_the_clients_say(tmp_path):
    results = simulate(
        "digits", overrides=[*SMALL, "methods=fedali-paper,local", "seeds=2"], out=tmp_path / "run"
    )
    table = results.table.set_index(["method", "measure"])
    rows = results.clients
    for seed in (0, 1):
        of_seed = rows[(rows.method == "fedali-paper") & (rows.seed == seed)]
        by_round = of_seed.groupby("round").validation.mean()
        assert results.selected["fedali-paper", seed] == by_round.idxmax()
    per_seed = [
        rows[
            (rows.method == "fedali-paper")
            & (rows.seed == s)
            & (rows["round"] == results.selected["fedali-paper", s])
        ]
        for s in (0, 1)
    ]
    expected = [frame.personalisation.mean() for frame in per_seed]
    assert table.loc[("fedali-paper", "personalisation"), "accuracy"] == pytest.approx(np.mean(expected))
    assert table.loc[("fedali-paper", "personalisation"), "seed_std"] == pytest.approx(
        np.std(expected, ddof=1)
    )
    worst = [frame.personalisation.min() for frame in per_seed]
    assert table.loc[("fedali-paper", "personalisation"), "worst_decile"] == pytest.approx(np.mean(worst))
    pooled = [np.average(frame["global"], weights=frame.test_samples) for frame in per_seed]
    assert table.loc[("fedali-paper", "global"), "accuracy"] == pytest.approx(np.mean(pooled))
    assert np.isnan(table.loc[("local", "global"), "accuracy"])
    assert json.loads(json.dumps(results.to_dict()))["table"][0]["method"] == "fedali-paper"
    assert isinstance(results.table, pd.DataFrame)


def test_training_helps(tmp_path):
    results = simulate(
        "digits",
        overrides=["partition.clients=5", "methods=fedali-paper", "seeds=1"],
        rounds=15,
        out=tmp_path / "run",
    )
    table = results.table.set_index("measure").accuracy
    assert table["personalisation"] > 0.9
    assert table["generalisation"] > 0.7
    assert table["global"] > 0.85


def test_same_seed_same_bits_whatever_the_workers(tmp_path):
    one, two = _run(tmp_path / "one"), _run(tmp_path / "two", workers=3)
    assert _files(one) == _files(two)
    other = _run(tmp_path / "other", seed=1)
    assert _files(one) != _files(other)


@pytest.mark.parametrize("method", ["fedali-paper", "fedali-kmeans", "fedper"])
def test_sites_that_sum_first_give_the_same_as_one(tmp_path, method):
    one = load_file(_run(tmp_path / "one", "training.rounds=1", method=method) / "checkpoint.safetensors")
    three = load_file(
        _run(tmp_path / "3", "training.rounds=1", "sites=3", method=method) / "checkpoint.safetensors"
    )
    assert one.keys() == three.keys()
    for name, value in one.items():
        np.testing.assert_allclose(three[name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("fedali-paper", []),
        ("fedali-head", ["training.participation=0.5"]),
        ("local", ["training.optimizer=sgd"]),
    ],
)
def test_resumed_after_any_round_gives_the_bits_of_an_uninterrupted_run(tmp_path, method, override):
    expected = _files(_run(tmp_path / "whole", *override, method=method))
    for rounds in (1, 2):
        folder = tmp_path / str(rounds)
        _run(folder, *override, f"training.rounds={rounds}", method=method)
        (folder / "done.json").unlink()
        assert _files(_run(folder, *override, method=method)) == expected


def test_kept_prototypes_and_occupancy_are_used(tmp_path):
    scenario = load_scenario(
        {
            **load_scenario("digits", SMALL).model_dump(exclude={"methods"}),
            "methods": [
                {
                    "name": "fedali-paper",
                    "options": {"local_prototypes": "keep", "masses": "occupancy", "warmup": 0},
                },
            ],
            "alp": {"num_prototypes": 8, "decay": 0.5},
        }
    )
    run_job(Job(scenario, scenario.methods[0], 0, tmp_path / "kept"))
    setup = build_setup(scenario, scenario.methods[0], 0, clients=tmp_path / "kept/clients.f32")
    setup.store.restore(load_file(tmp_path / "kept/checkpoint.safetensors"))
    sets = [setup.store.compose(client, setup.initial)[1] for client in range(5)]
    assert not np.allclose(sets[0], sets[1])
    assert not np.allclose(sets[0], setup.initial.prototypes)


def test_clients_held_out_are_never_trained_on_and_adapt(tmp_path):
    results = simulate(
        "digits",
        overrides=[
            *SMALL,
            "methods=fedali-paper",
            "evaluation.unseen_clients=2",
            "training.rounds=8",
            "training.epochs=4",
        ],
        out=tmp_path / "run",
    )
    assert results.unseen is not None
    assert len(results.unseen) == 2
    assert not set(results.unseen.client) & set(results.clients.client)
    assert results.clients.client.nunique() == 3
    assert results.unseen.after.mean() > results.unseen.before.mean()
    federation = load_federation(results.scenario, 0)
    setup = build_setup(results.scenario, results.scenario.methods[0], 0)
    seen = np.concatenate([federation.clients[i].x_train for i in setup.sites[0].clients])
    np.testing.assert_allclose(federation.normalisation[0].mean.squeeze(), seen.mean(), rtol=1e-5)


def test_participation_trains_some_clients_a_round(tmp_path):
    folder = _run(tmp_path / "run", "training.participation=0.4", "training.rounds=6")
    trained = [
        pd.read_parquet(p).dropna(subset="train_loss").client for p in sorted((folder / "metrics").iterdir())
    ]
    assert [len(clients) for clients in trained] == [2] * 6
    assert len({tuple(clients) for clients in trained}) > 1


def test_own_csv_data_runs(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for client in ("ann", "bob", "cyd"):
        for label, speed in (("walk", 0.2), ("run", 0.9)):
            t = np.arange(400)
            signal = np.sin(speed * t[:, None] + rng.uniform(0, 6, 2)) + 0.1 * rng.standard_normal((400, 2))
            rows.append(
                pd.DataFrame({"client": client, "label": label, "x": signal[:, 0], "y": signal[:, 1]})
            )
    pd.concat(rows).to_csv(tmp_path / "mine.csv", index=False)
    scenario = {
        "data": {"source": str(tmp_path / "mine.csv"), "window": 32, "stride": 16},
        "model": {"name": "cnn1d", "options": {"channels": [8, 16]}},
        "alp": {"num_prototypes": 4},
        "training": {"rounds": 4, "batch_size": 8, "learning_rate": 3e-3, "engine": "loop"},
    }
    results = simulate(scenario, out=tmp_path / "run")
    assert set(results.clients.client) == {"ann", "bob", "cyd"}
    assert results.table.accuracy[0] > 0.9


def test_a_folder_in_use_is_refused_and_an_empty_one_cannot_be_resumed(tmp_path):
    simulate("digits", overrides=[*SMALL, "methods=fedavg"], rounds=1, out=tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run already: continue it with --resume"):
        simulate("digits", overrides=SMALL, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds no run"):
        resume(tmp_path / "nothing")


def test_a_broken_checkpoint_is_named(tmp_path):
    folder = _run(tmp_path / "run", "training.rounds=1")
    (folder / "done.json").unlink()
    path = folder / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cannot read .*checkpoint.safetensors: .* Delete the folder"):
        _run(tmp_path / "run")


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    folder = _run(tmp_path / "run", "training.rounds=1")
    (folder / "done.json").unlink()
    with pytest.raises(CheckpointError, match="belongs to another run: its settings"):
        _run(tmp_path / "run", "training.learning_rate=0.5")


def test_divergence_is_one_line(tmp_path):
    with pytest.raises(
        FedaliError, match=r"client-1 diverged in round [0-9]: .* lower training.learning_rate"
    ):
        _run(tmp_path / "run", "training.optimizer=sgd", "training.learning_rate=1e30", method="fedavg")


def test_too_many_clients_is_one_line(tmp_path):
    with pytest.raises((SettingsError, DataError), match="clients"):
        simulate("digits", overrides=["partition.clients=1000"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
