"""The table of a run over devices, from what its folder has of the rounds."""

from __future__ import annotations

import json

import pytest

from fedali_simulations.federate.deployed import DeployedRun, collect_runs
from fedali_simulations.scenario import load_scenario


def run_of(folder, train, evaluate):
    (folder / "rounds").mkdir(parents=True)
    facts = {"round": 1, "seconds": 1.0, "train": train, "evaluate": evaluate, "reports": []}
    (folder / "rounds" / "00001.json").write_text(json.dumps(facts))
    (folder / "done.json").write_text(json.dumps({"rounds": 1, "best_round": 1}))
    return DeployedRun("fedali-paper", 0, folder)


TRAIN = {
    "client": [0.0, 1.0],
    "samples": [10.0, 30.0],
    "validation": [0.5, 0.7],
    "personalisation": [0.6, 0.8],
}
EVALUATE = {"client": [0.0, 1.0], "test_samples": [1.0, 3.0], "global": [0.2, 0.6]}


@pytest.mark.parametrize(
    "more",
    [
        ({}, {}),
        ({"samples_x": [1.0, 2.0], "round": [9.0, 9.0], "test_samples": [7.0, 7.0]}, {}),
        ({"global": [1.0, 1.0]}, {"personalisation": [0.0, 0.0], "method": [1.0, 1.0]}),
        ({"seed": [3.0, 3.0]}, {"samples": [1.0, 3.0]}),  # files of 0.1.0 call test samples so
    ],
)
def test_a_table_is_made_of_known_columns_alone(tmp_path, more):
    run = run_of(tmp_path / "run", {**TRAIN, **more[0]}, {**EVALUATE, **more[1]})
    scenario = load_scenario("digits", ["methods=fedali-paper", "training.rounds=1"])
    found = collect_runs(scenario, tmp_path, [run])
    table = {line["measure"]: line["accuracy"] for line in found.table.to_dict("records")}
    assert table["personalisation"] == pytest.approx(0.7)
    assert table["global"] == pytest.approx(0.5)  # (0.2 * 1 + 0.6 * 3) / 4
    assert found.selected == {("fedali-paper", 0): 1}
