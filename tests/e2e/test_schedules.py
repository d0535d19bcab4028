"""A cosine with decay and clipping over devices and a site with data is its simulation; and a run that stops early."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali_simulations.study import simulate
from tests.federations import Place

LINES = (
    'methods=[{name="fedavg"}, '
    '{name="fedavg", label="still", training={learning_rate=1e-12, weight_decay=0.0, patience=1}}]'
)
CHANGES = (
    *(LINES, "training.rounds=4", "training.schedule=cosine", "training.warmup_rounds=1"),
    *("training.weight_decay=0.5", "training.clip_norm=0.5", "model.name=mlp", "model.options={hidden=[16]}"),
)


@pytest.mark.slow
def test_a_schedule_over_devices_and_a_site_with_data_is_that_of_the_simulation(tmp_path):
    with Place(tmp_path, devices=4, changes=CHANGES) as place:
        place.site_b_holds_data()
        found, _ = place.run_here("run")
    training = place.scenario.training.model_copy(update={"engine": "onnx"})
    scenario = place.scenario.model_copy(update={"training": training, "sites": 2})
    simulated = simulate(scenario, out=tmp_path / "simulated")
    rounds = {(line["method"], line["rounds"]) for line in simulated.to_dict()["table"]}
    assert rounds == {("fedavg", 4), ("still", 2)}
    assert {(line["method"], line["rounds"]) for line in found.results.to_dict()["table"]} == rounds
    assert found.results.stopped == simulated.stopped != ""
    one, other = (
        load_file(tmp_path / name / "fedavg" / "seed-0" / "checkpoint.safetensors")["shared.theta"]
        for name in ("run", "simulated")
    )
    assert np.abs(one - other).max() < 1e-4
    assert json.loads((tmp_path / "run" / "still" / "seed-0" / "done.json").read_text())["rounds"] == 2
