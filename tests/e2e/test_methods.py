"""Methods with state, phases and second models over two sites, of devices and of data; and one that is no part of FedAli."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali.bundle.file import read_bundle
from fedali_simulations.study import simulate
from tests.federations import Place

METHODS = ["fedprox", "fedrep", "ditto", "scaffold", "moon", "fedproto", "fedbabu", "apfl", "feddbe"]
if os.environ.get("FEDALI_PARITY") == "all":  # half a minute each: `make parity`
    METHODS += ["fedntd", "fedrod", "fedala", "fedbn", "fedpac-align"]
# pFedMe's graph of a convolution is off by three times what a bundle may be
CHANGES = (
    *("methods=" + ",".join(METHODS), "training.rounds=2", "training.epochs=2"),
    *("training.optimizer=sgd", "training.learning_rate=0.05", "training.momentum=0.0"),
)


@pytest.mark.slow
def test_methods_over_devices_and_a_site_with_data_equal_their_simulations(tmp_path):
    with Place(tmp_path, devices=4, changes=CHANGES) as place:
        place.site_b_holds_data()
        found, _ = place.run_here("run")
        training = place.scenario.training.model_copy(update={"engine": "onnx"})
        scenario = place.scenario.model_copy(update={"training": training, "sites": 2})
        simulated = simulate(scenario, out=tmp_path / "simulated")
        expected = {(line["method"], line["measure"]): line for line in simulated.to_dict()["table"]}
        for line in found.to_dict()["table"]:
            if line["measure"] == "personalisation" or (
                line["measure"] == "global" and line["accuracy"] is not None
            ):
                other = expected[line["method"], line["measure"]]
                assert line["last_round"] == pytest.approx(other["last_round"], abs=0.01), line
        for method in METHODS:
            one, other = (
                load_file(tmp_path / name / method / "seed-0" / "checkpoint.safetensors")["shared.theta"]
                for name in ("run", "simulated")
            )
            moved = np.abs(one - place_start(tmp_path, method)).max()
            assert moved > 1e-3, method
            assert np.abs(one - other).max() < 1e-4 * max(1.0, np.abs(other).max()), method
        reports = [facts["reports"] for facts in place.rounds("run")]
        assert {report["state"] for round_ in reports for report in round_} == {"done"}


def place_start(folder, method):
    bundle = read_bundle(folder / "run" / "untrained" / f"{method}-0.fedali", None, allow_unsigned=True)
    return bundle.state()["shared_theta"]


MINE = '''
from dataclasses import dataclass

from fedali.methods import Method
from fedali.slots import Slot


@dataclass(frozen=True)
class Scaffold(Method):
    """SCAFFOLD as a researcher would write it."""

    slots = (Slot("control", "shared"), Slot("own", "kept"))

    def objective(self, step):
        total = step.loss()
        for name, value in step.own.model.items():
            total = total + (value * (step.server["control"][name] - step.own["own"][name])).sum()
        return total

    def finish(self, end):
        c, own = end.server["control"], end.own["own"]
        new = {
            n: own[n] - c[n] + (end.server.model[n] - y) / (end.steps * end.step_size)
            for n, y in end.own.model.items()
        }
        return {"own": new, "control": {n: c[n] + new[n] - own[n] for n in own}}
'''


@pytest.mark.slow
def test_a_method_of_ones_own_runs_on_devices_and_is_exported(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("m")  # a socket's path has to be short
    (tmp_path / "my_method.py").write_text(MINE)
    small = ["alp.num_prototypes=8", "model.options.channels=[4,8]", "training.epochs=1", "training.rounds=2"]
    small += ["training.optimizer=sgd", "training.momentum=0.0", "methods=scaffold,my_method:Scaffold"]
    changes = [f"--set={change}" for change in small]

    def fedali(*words):
        done = subprocess.run(
            [sys.executable, "-m", "fedali", *words],
            cwd=tmp_path,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done

    done = fedali("up", "--devices", "2", "--sites", "1", "--keep", "kept", "--json", *changes)
    table = json.loads(done.stdout)["devices"]["table"]
    lines = {line["method"]: line for line in table if line["measure"] == "personalisation"}
    assert lines["my_method:Scaffold"]["accuracy"] == lines["scaffold"]["accuracy"]  # all take part: the same
    fedali("export", "kept", "--method", "my_method:Scaffold", "--out", "mine.fedali")
    manifest = read_bundle(tmp_path / "mine.fedali", None, allow_unsigned=True).manifest
    assert manifest.method.name == "my_method:Scaffold"
    assert {"finish.onnx", "train.onnx"} <= manifest.parts.keys()
    assert len(manifest.personal) == 1
