"""What no federated method is, in the table of those: against the same done by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.ensemble import RandomForestClassifier
from torch import nn

from fedali.errors import SettingsError
from fedali_simulations import compare_runs, load_scenario, simulate
from fedali_simulations.baselines.forest import statistics_of
from fedali_simulations.comparing.asked import asked_for
from fedali_simulations.data import load_federation
from fedali_simulations.federate.running import prepare_scenario
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job
from fedali_simulations.setup import build_plan
from fedali_simulations.tuning.space import space_of

SMALL = [
    "partition.clients=5",
    "training.rounds=3",
    "training.epochs=1",
    "evaluation.generalisation_every=2",
    "model.options.channels=[4, 8]",
    "seeds=1",
]


def run(folder, method, *overrides, stop=None):
    scenario = load_scenario("digits", [*SMALL, f"methods={method}", *overrides])

    def report(progress):
        if stop is not None and progress.round == stop:
            raise KeyboardInterrupt

    run_job(Job(scenario, scenario.methods[0], 0, folder, 1), report)
    return scenario


def metrics(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted((folder / "metrics").glob("*.parquet"))])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooled") / "run"
    return folder, run(folder, "pooled", "evaluation.unseen_clients=1", "split.normalise=client")


def normalised(federation, part):
    pairs = list(zip(federation.clients, federation.normalisation, strict=True))
    return [(n(getattr(c, f"x_{part}")), getattr(c, f"y_{part}")) for c, n in pairs]


def test_pooled_is_trained_on_everybodys_data_in_plain_torch(pooled):
    folder, scenario = pooled
    line = load_scenario("digits", [*SMALL, "methods=fedavg", "evaluation.unseen_clients=1"]).methods[0]
    plan = build_plan(scenario, line, 0)
    sets = [normalised(plan.federation, "train")[client] for client in plan.seen]
    x, y = (torch.from_numpy(np.concatenate(part)) for part in zip(*sets, strict=True))
    model = plan.model
    for round_ in (1, 2, 3):
        optimizer = torch.optim.Adam(model.parameters(), lr=scenario.training.learning_rate)
        order = np.random.default_rng(np.random.SeedSequence([0, 20, round_])).permutation(len(y))
        for start in range(0, len(y), 32):
            part = order[start : start + 32]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]).logits, y[part]).backward()
            optimizer.step()
    found = load_file(folder / "checkpoint.safetensors")["shared.theta"]
    apart = np.abs(found - model.theta().numpy())  # a bias that nothing depends on goes where rounding says
    assert (apart < 1e-5).mean() > 0.99
    assert np.abs(found - plan.initial.theta).max() > 0.05
    rows = metrics(folder).set_index(["round", "client"])
    tests = normalised(plan.federation, "test")
    with torch.no_grad():
        said = [model(torch.from_numpy(x)).logits.argmax(1).numpy() for x, _ in tests]
    right = {
        c.name: np.mean(s == y) for c, s, (_, y) in zip(plan.federation.clients, said, tests, strict=True)
    }
    last = rows.loc[3]
    for client in plan.seen:
        name = plan.federation.clients[client].name
        assert last.loc[name, "personalisation"] == last.loc[name, "global"]
        assert last.loc[name, "personalisation"] == pytest.approx(right[name], abs=0.02)
    hits = np.concatenate([said[c] == tests[c][1] for c in plan.seen])
    assert last["generalisation"].to_numpy() == pytest.approx(np.full(4, hits.mean()), abs=0.01)
    assert rows.loc[1]["generalisation"].isna().all() or "generalisation" not in rows.loc[1]
    adapted = pd.read_parquet(folder / "unseen.parquet")
    (held_out,) = plan.unseen
    assert adapted["before"][0] == pytest.approx(right[plan.federation.clients[held_out].name], abs=0.02)


def test_pooled_goes_on_where_it_was_interrupted(pooled, tmp_path):
    again = tmp_path / "again"
    settings = ("evaluation.unseen_clients=1", "split.normalise=client")
    with pytest.raises(KeyboardInterrupt):
        run(again, "pooled", *settings, stop=2)
    assert not (again / "done.json").exists()
    run(again, "pooled", *settings)
    pd.testing.assert_frame_equal(metrics(again), metrics(pooled[0]), check_exact=True)
    before, after = (json.loads((path / "done.json").read_text()) for path in (pooled[0], again))
    assert before["best_round"] == after["best_round"] in (2, 3)
    assert after["timing"]["first_round"] == 3


def by_hand(x):
    """Features of windows, channel by channel."""
    return np.array(
        [
            [
                number
                for f in (
                    np.mean,
                    np.std,
                    np.min,
                    np.max,
                    lambda c: np.quantile(c, 0.25),
                    np.median,
                    lambda c: np.quantile(c, 0.75),
                    lambda c: np.mean([abs(b - a) for a, b in itertools.pairwise(c)]),
                )
                for number in [f(window[:, channel]) for channel in range(window.shape[1])]
            ]
            for window in x
        ],
        np.float32,
    )


def test_forests_are_those_of_scikit_learn_on_statistics_of_windows(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.normal(size=(240, 20, 2)).cumsum(1).astype(np.float32) * (1 + y[:, None, None])
    np.savez(tmp_path / "walks.npz", x=x, y=y, client=np.arange(240) // 80)
    settings = {
        "data": {"source": str(tmp_path / "walks.npz")},
        "split": {"order": "random"},
        "methods": ["forest", "forest-pooled"],
        "training": {"rounds": 2, "epochs": 1, "engine": "loop", "keep_models": "none"},
        "model": {"name": "cnn1d", "options": {"channels": [4, 4]}},
    }
    results = simulate(settings, out=tmp_path / "run", workers=1)
    federation = load_federation(results.scenario, 0)
    train, test = ([(by_hand(x), y) for x, y in normalised(federation, part)] for part in ("train", "test"))

    def grown(sets):
        forest = RandomForestClassifier(200, random_state=0)
        return forest.fit(*(np.concatenate(part) for part in zip(*sets, strict=True)))

    assert statistics_of(x) == pytest.approx(by_hand(x), abs=1e-4)
    rows = results.clients.set_index(["method", "round", "client"])
    labels, everything = np.concatenate([y for _, y in test]), np.concatenate([x for x, _ in test])
    for k, client in enumerate(federation.clients):
        for method, forest in (("forest", grown(train[k : k + 1])), ("forest-pooled", grown(train))):
            row = rows.loc[method, 1, client.name]
            assert row["personalisation"] == pytest.approx(forest.score(*test[k]), abs=0.05)
            assert row["generalisation"] == pytest.approx(forest.score(everything, labels), abs=0.03)
    compared = compare_runs([tmp_path / "run"])
    assert compared.methods == ["forest", "forest-pooled"]
    assert np.isnan(compared.row("global", "forest")["mean"])
    assert compared.row("global", "forest-pooled")["mean"] > 0.5
    assert any(note.startswith("forest, no federated method") for note in compared.notes)


def test_they_are_lines_of_a_comparison_and_nothing_else(tmp_path):
    asked = asked_for(["digits"], "fedavg,pooled,forest", None, SMALL, None)
    assert [line.title for line in asked.methods] == ["fedavg", "pooled", "forest"]
    for what in (
        lambda: space_of(asked, asked.methods[1], []),
        lambda: build_plan(asked, asked.methods[2], 0),
        lambda: prepare_scenario(asked, tmp_path / "run", {}, None),
    ):
        with pytest.raises(SettingsError, match="no federated method, but something to compare with"):
            what()
    with pytest.raises(SettingsError, match="forest has no options, not trees"):
        load_scenario("digits", ["methods=[{name='forest', options={trees=3}}]"])
