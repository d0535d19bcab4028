"""A real federation on loopback for tests: server, sites, gateways and devices, each a process, over TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from safetensors.numpy import load_file

from fedali.bundle.file import read_bundle
from fedali_simulations.federate import running
from fedali_simulations.federate.exporting import export_untrained
from fedali_simulations.federate.local_federation import LocalFederation
from fedali_simulations.federate.up import scenario_for
from fedali_simulations.setup import build_plan
from fedali_simulations.study import simulate
from fedali_simulations.template import to_toml

SMALL = [
    *("alp.num_prototypes=8", "model.options.channels=[4,8]", "training.epochs=1", "training.rounds=3"),
    *("evaluation.generalisation_every=1", "methods=fedali-paper"),
]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


class Place:
    """A federation of ``devices`` devices at two sites in ``folder``, and runs on it."""

    def __init__(self, folder, devices=6, changes=()):
        self.folder = folder
        self.scenario = scenario_for("digits", [*SMALL, *changes], devices)
        plan = build_plan(self.scenario, self.scenario.methods[0], self.scenario.seed)
        self.local = LocalFederation(folder, plan.federation, plan.seen, 2)
        self.local.provision()
        self.kit = self.local.operator
        self.file = folder / "study.toml"
        self.file.write_text(to_toml(self.scenario))
        self.runs = []

    def __enter__(self):
        self.local.__enter__()
        return self

    def __exit__(self, *error):
        for run in self.runs:
            if run.poll() is None:
                run.kill()
            run.wait()
            run.stdout.close()
        self.local.__exit__(*error)

    def site_b_holds_data(self):
        """site-b trains its clients itself from now on, with the data of the devices that it had; site-a keeps its devices."""
        local = self.local
        replaced = [local.processes.pop(name) for name in (*local.devices[2:], "site-b")]
        for process in replaced:
            process.signal(signal.SIGTERM)
        for process in replaced:
            process.end()
        words = ("--data", str(local.folder / "data"), "--engine", "onnx", "--workers", "1")
        local.start("site-b with data", "fedali", "site", "start", str(local.kit("site-b")), *words)

    def start_run(self, name, *words, bundle=None, cwd=None):
        """``fedali run`` in a process of its own, into the folder ``name``."""
        out = self.folder / name
        what = ["--resume", out] if out.exists() else [bundle or self.file, "--out", out]
        if not out.exists() and "--quorum" not in words:
            what += ["--quorum", "1"]  # whoever is slow to start is in every round
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            words = [*what, "--kit", self.local.kit("operator"), "--json", "--patience", "120", *words]
            run = subprocess.Popen(
                [sys.executable, "-m", "fedali", "run", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **QUIET},
                cwd=cwd,
            )
        self.runs.append(run)
        return run

    def bundle(self):
        """The untrained model that the scenario's runs start from, signed: exported once."""
        path = self.folder / "untrained.fedali"
        if not path.exists():
            line, seed = self.scenario.methods[0], self.scenario.seed
            export_untrained(self.scenario, line, seed, path, key=self.kit.signing_key)
        return path

    def initial(self):
        """Theta that runs of ``bundle`` start from."""
        return read_bundle(self.bundle(), None, allow_unsigned=True).state()["shared_theta"]

    def said(self, name):
        return (self.folder / "logs" / f"{name}.log").read_text()

    def finish(self, run, name):
        """Its results, once it is done."""
        out, _ = run.communicate(timeout=300)
        assert run.returncode == 0, self.said(name)
        return json.loads(out)

    def run_here(self, name, like=None):
        """A run in this process: what it found, and the state after each round. It starts from the bundle of the run ``like``."""
        out, states = self.folder / name, {}

        def report(_, progress):
            if progress.round:
                states[progress.round] = self.state(name)[1:]

        running.prepare_scenario(self.scenario, out, {"sites": 2}, self.kit)
        if like:
            shutil.copytree(self.folder / like / "untrained", out / "untrained")
        return running.go_on(out, self.kit, report, meanwhile=self.local.check), states

    def simulate(self, name):
        """The simulation of the same federation: its results, and the state after each round.

        By the engine that devices have: Adam takes a whole step where a gradient is nearly zero, whichever sign rounding gives it.
        """
        training = self.scenario.training.model_copy(update={"engine": "onnx"})
        scenario = self.scenario.model_copy(update={"training": training, "sites": 2})
        states = {}

        def report(progress):
            if progress.round:
                (found,) = (self.folder / name).glob("*/*/checkpoint.safetensors")
                state = load_file(found)
                states[progress.round] = state["shared.theta"], state["shared.prototypes"]

        return simulate(scenario, out=self.folder / name, report=report), states

    def state(self, name):
        """Round, theta and prototypes of a run's checkpoint; None before the first round."""
        found = [*(self.folder / name).glob("*/*/checkpoint.safetensors")]
        if (self.folder / name / "checkpoint.safetensors").exists():
            found.append(self.folder / name / "checkpoint.safetensors")
        if not found:
            return None
        with found[0].open("rb") as stream:
            head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        tensors = load_file(found[0])
        round_ = int(json.loads(head["__metadata__"]["fedali"])["round"])
        return round_, tensors["shared.theta"], tensors["shared.prototypes"]

    def wait_for_round(self, name, round_, run, seconds=120):
        """Wait until a round is complete; its state."""
        return self.wait(
            lambda: (s := self.state(name)) and s[0] >= round_ and s, seconds, lambda: self.alive(run, name)
        )

    def alive(self, run, name):
        assert run.poll() is None, self.said(name)

    def wait(self, what, seconds=120, meanwhile=lambda: None):
        """Wait for ``what()`` to be something; what it is."""
        end = time.monotonic() + seconds
        while not (found := what()):
            meanwhile()
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)
        return found

    def rounds(self, name):
        """What each complete round of a run left."""
        return [json.loads(p.read_text()) for p in sorted((self.folder / name).rglob("rounds/*.json"))]


def same(one, other):
    """Whether two states are the same bit by bit."""
    return all(np.array_equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
