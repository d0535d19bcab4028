"""A federation over TLS, with real processes: what comes out is what the simulation of the same federation finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali.bundle.file import read_bundle
from fedali.bundle.keys import load_public
from fedali.errors import SettingsError
from fedali_server.site.relay import RelayConnection
from fedali_simulations.federate import exporting
from tests.federations import SMALL, Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("federation")) as running:
        yield running


@pytest.fixture(scope="module")
def simulated(place):
    return place.simulate("simulated")


def test_three_rounds_over_two_sites_and_six_devices_equal_the_simulation(place, simulated):
    found, states = place.run_here("run")
    simulated, expected_states = simulated
    for facts in place.rounds("run"):
        assert [report["state"] for report in facts["reports"]] == ["done"] * 12  # six trained, six evaluated
    for one, other in zip(states[1], expected_states[1], strict=True):
        assert np.abs(one - other).max() < 1e-4
    agree(found, simulated)


def test_a_run_over_devices_is_exported_without_any_data(place, simulated, tmp_path):
    run = place.folder / "run"
    kept = run / place.scenario.methods[0].title / f"seed-{place.scenario.seed}"
    for named, file in (
        (run, "best.safetensors"),
        (kept, "best.safetensors"),
        (kept / "checkpoint.safetensors", "checkpoint.safetensors"),
    ):
        bundle = exporting.export(named, tmp_path / "f.fedali", key=place.kit.signing_key)
        again = read_bundle(tmp_path / "f.fedali", [load_public(place.kit.trusted_key)])
        state = load_file(kept / file)
        assert np.array_equal(again.state()["theta"], state["shared.theta"])
        assert np.array_equal(again.state()["local_prototypes"], state["shared.prototypes"])
        assert bundle.manifest.classes == tuple("0123456789")
        assert bundle.manifest.round > 0
    with pytest.raises(SettingsError, match="keep their personal models to themselves"):
        exporting.export(run, tmp_path / "g.fedali", client="device-0")
    with pytest.raises(SettingsError, match="leave --int8 away"):
        exporting.export(run, tmp_path / "g.fedali", mode="head", int8=True)
    assert not (tmp_path / "g.fedali").exists()


def test_a_site_that_holds_data_takes_the_place_of_one_with_devices(place, simulated):
    """Its kit, and the same data; the other site keeps its devices."""
    local = place.local
    replaced = [local.processes.pop(name) for name in (*local.devices[3:], "site-b")]
    for process in replaced:
        process.signal(signal.SIGTERM)
    for process in replaced:
        process.end()
    kit, data = str(local.kit("site-b")), str(local.folder / "data")
    words = ("--data", data, "--engine", "onnx", "--workers", "1")
    site = local.start("site-b with data", "fedali", "site", "start", kit, *words)
    found, states = place.run_here("mixed", like="run")
    for facts in place.rounds("mixed"):
        assert [report["state"] for report in facts["reports"]] == ["done"] * 12
        assert {report["site"]: report["sent"] > 0 for report in facts["reports"]} == {
            "site-a": True,
            "site-b": False,
        }
    for one, other in zip(states[1], simulated[1][1], strict=True):
        assert np.abs(one - other).max() < 1e-4
    agree(found, simulated[0])
    asked = RelayConnection(local.kit("site-b") / "state" / "relay.sock")  # as fedali status KIT does
    told = [(device.device, device.online) for device in asked.status().devices]
    asked.close()
    assert told == [(name, True) for name in local.devices[3:]]
    site.signal(signal.SIGTERM)
    site.end()
    assert site.running.returncode == 0
    said = site.said()
    assert "data of no device of this site are not used" in said
    assert said.count("has joined") == 1
    assert said.rstrip().rsplit("\n", 1)[-1].startswith("site site-b has left ")


def agree(found, simulated):
    """Tables of a run and of a simulation."""
    expected = {line["measure"]: line for line in simulated.to_dict()["table"]}
    for line in found.to_dict()["table"]:
        if line["measure"] == "generalisation":
            assert line["accuracy"] is None  # devices have no data of others
            continue
        assert line["accuracy"] == pytest.approx(expected[line["measure"]]["accuracy"], abs=0.01)
        assert line["last_round"] == pytest.approx(expected[line["measure"]]["last_round"], abs=0.01)


@pytest.mark.slow
def test_a_federation_on_this_machine_asks_no_proxy_for_itself(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    proxy = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"
    )
    small = [f"--set={change}" for change in (*SMALL, "training.rounds=1")]
    words = ["up", "--devices", "2", "--sites", "1", "--json", *small]
    done = subprocess.run(
        [sys.executable, "-m", "fedali", *words],
        cwd=tmp_path,
        env={**environment, **proxy},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["devices"]
    assert found["traffic"]["fedali-paper"]["states"] == {"done": 2}
