"""What is said before trainings over devices begin."""

from __future__ import annotations

import json
from pathlib import Path

from fedali.wire.kit import OperatorDevice, OperatorKit
from fedali_simulations.federate.announcing import announcement
from fedali_simulations.scenario import load_scenario
from fedali_simulations.study import jobs_of
from fedali_simulations.template import to_toml

METHODS = "fedali-paper,fedali-head,fedavg,fedper,local"


def prepared(folder, *changes):
    scenario = load_scenario("digits", changes)
    folder.mkdir()
    (folder / "scenario.toml").write_text(to_toml(scenario))
    return scenario, folder


def kit(*names):
    here = Path("kits/operator")
    devices = tuple(OperatorDevice(name, number, "a") for number, name in enumerate(names))
    return OperatorKit(here, "wards", "server:9093", *[here] * 5, ("a",), (), devices, here)


def test_how_many_trainings_and_which_clients_are_no_devices(tmp_path):
    scenario, folder = prepared(tmp_path / "run", f"methods={METHODS}", "seeds=5", "partition.clients=3")
    trainings, clients = announcement(folder, kit("client-1", "ward"))
    assert trainings.startswith("25 trainings of 15 rounds, one after another: 5 methods x 5 seeds.")
    assert "--set methods=fedali-paper --set seeds=1" in trainings
    assert "the 2 devices train on their own data" in clients
    assert clients.endswith("2 of its 3 clients are no device and train nowhere: client-2, client-3")
    for job in jobs_of(scenario, folder)[:4]:
        job.folder.mkdir(parents=True)
        (job.folder / "run.json").write_text("{}")
        (job.folder / "done.json").write_text(json.dumps({"rounds": 15}))
    (line,) = announcement(folder, kit("client-1", "ward"))
    assert "5 methods x 5 seeds, 4 of them complete." in line


def test_of_one_training_on_matching_devices_nothing_is_said(tmp_path):
    _, folder = prepared(tmp_path / "run", "seeds=1", "methods=fedali-paper", "partition.clients=2")
    assert announcement(folder, kit("client-1", "client-2")) == []
    assert announcement(tmp_path, kit()) == []
