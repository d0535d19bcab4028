"""Buffered asynchronous rounds of whole runs, beside FedBuff written plainly."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedali.engines.base import TrainJob
from fedali.errors import SettingsError
from fedali_simulations import load_scenario, simulate
from fedali_simulations.federate.running import prepare_scenario
from fedali_simulations.jobs import identity
from fedali_simulations.setup import build_setup
from tests.integration.run.test_sampling import train
from tests.integration.run.test_simulate import SMALL, _files

BUFFERED = [
    "training.mode=buffered",
    "buffered.size=2",
    "buffered.concurrency=3",
    "training.keep_models=none",
]


def test_the_model_is_fedbuffs(tmp_path):
    settings = [*BUFFERED, "buffered.server_rate=0.5", "training.rounds=5"]
    folder = train(tmp_path / "run", *settings, method="fedper")
    rows = pd.concat(pd.read_parquet(path) for path in sorted((folder / "metrics").iterdir()))
    reports = rows.dropna(subset="staleness")[["round", "client", "staleness"]].itertuples(index=False)
    said = [(round_, int(client.removeprefix("client-")) - 1, int(s)) for round_, client, s in reports]
    assert len(said) == 10
    assert {staleness for _, _, staleness in said} > {0}

    scenario = load_scenario("digits", [*SMALL, "methods=fedper"])
    setup = build_setup(scenario, scenario.methods[0], 0)
    assert [client.name for client in setup.federation.clients][4] == "client-5"
    states, own = [setup.initial.theta], {}
    personal = setup.store.where
    for step in range(1, 6):
        total = np.zeros(len(states[0]))
        for _, client, staleness in (one for one in said if one[0] == step):
            began = states[step - 1 - staleness]
            start = began.copy()
            start[personal] = own.get(client, start[personal])
            seed = np.random.SeedSequence([0, 0, step, client])
            nothing = np.empty(0, np.float32)
            samples = setup.sites[0].cohort.train[client]
            job = TrainJob(samples, start, nothing, began, nothing, 0.0, seed)
            (ended,) = setup.sites[0].engine.train([job])
            own[client] = ended.theta[personal]
            total += (ended.theta - began.astype(np.float64)) / np.sqrt(1 + staleness)
        new = states[-1] + 0.5 * total / 2
        new[personal] = states[0][personal]
        states.append(new.astype(np.float32))
    found = load_file(folder / "checkpoint.safetensors")["shared.theta"]
    assert np.abs(found - states[0]).max() > 1e-3
    np.testing.assert_allclose(found, states[-1], atol=1e-6)


def test_resumed_it_has_the_bits_of_an_uninterrupted_run(tmp_path):
    settings = [*BUFFERED, "sampling.dropout=0.3", "sampling.kind=availability", "sampling.day_share=0.5"]
    expected = _files(train(tmp_path / "whole", *settings))
    train(tmp_path / "part", *settings, "training.rounds=2")
    (tmp_path / "part/done.json").unlink()
    assert _files(train(tmp_path / "part", *settings)) == expected
    drawn = [json.loads((tmp_path / f"whole/drawn/0000{r}.json").read_text()) for r in (1, 2, 3)]
    assert all(len(one["trained"]) == 2 for one in drawn)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["methods=scaffold"], "scaffold does not go with training.mode = 'buffered': its server does more"),
        (["methods=fedavg", "sampling.kind=size"], "sampling.kind = 'size' does not go with training.mode"),
        (["methods=fedavg", "sites=2"], "one clock for all clients: set sites = 1, not 2"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(overrides, message):
    with pytest.raises(SettingsError) as caught:
        load_scenario("digits", ["training.mode=buffered", *overrides])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_than_there_are_is_one_line_before_anything_is_written(tmp_path):
    overrides = [*SMALL, *BUFFERED, "methods=fedavg", "buffered.size=4", "evaluation.unseen_clients=2"]
    with pytest.raises(SettingsError, match=r"buffered\.size is 4, and 3 clients train: a step could never"):
        simulate("digits", overrides=overrides, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_devices_refuse_it_and_other_runs_are_the_same(tmp_path):
    buffered = load_scenario("digits", ["training.mode=buffered", "methods=fedavg"])
    with pytest.raises(SettingsError, match=r"training\.mode = 'buffered' is for fedali simulate"):
        prepare_scenario(buffered, tmp_path / "run", {}, None)  # type: ignore[arg-type]
    one, two = (load_scenario("digits", [f"buffered.size={size}", "methods=fedavg"]) for size in (10, 3))
    line = one.methods[0]
    assert identity(one, line, 0) == identity(two, line, 0) != identity(buffered, line, 0)
