"""Who trains in a round of a whole run: by each rule, the same bits again, and in the folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from fedali.errors import SettingsError
from fedali_simulations import load_scenario, simulate
from fedali_simulations.federate.running import prepare_scenario
from fedali_simulations.jobs import Job, identity
from fedali_simulations.run import run_job
from tests.integration.run.test_simulate import SMALL, _files

_KILLED = """
import os, signal, sys
from pathlib import Path
from fedali_server.run.folder import RunFolder
from tests.integration.run.test_sampling import train

write = RunFolder.write_checkpoint
def last_write(self, checkpoint):
    if checkpoint.round == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, checkpoint)
RunFolder.write_checkpoint = last_write
train(Path(sys.argv[1]), *sys.argv[2:])
"""


def train(folder, *overrides, method="fedper"):
    """A small run, or what is left of it."""
    scenario = load_scenario(
        "digits", [*SMALL, "training.participation=0.4", f"methods={method}", *overrides]
    )
    run_job(Job(scenario, scenario.methods[0], 0, folder))
    return folder


@pytest.mark.slow
def test_a_run_killed_in_a_round_by_loss_goes_on_with_the_same_bits(tmp_path):
    settings = ["sampling.kind=loss", "sampling.dropout=0.3", "sampling.candidates=4"]
    expected = _files(train(tmp_path / "whole", *settings))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "killed"), *settings]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/done.json").exists()
    assert _files(train(tmp_path / "killed", *settings)) == expected
    drawn = [json.loads((tmp_path / f"whole/drawn/0000{r}.json").read_text()) for r in (1, 2, 3)]
    for round_, one in enumerate(drawn, 1):
        rows = pd.read_parquet(tmp_path / f"whole/metrics/0000{round_}.parquet")
        trained = rows.dropna(subset="train_loss").client if "train_loss" in rows else []
        assert sorted(trained) == sorted(one["trained"])
        assert len(one["trained"]) + len(one["dropped"]) == 2
        assert one["on"] == 5


def test_rounds_of_nobody_change_nothing_and_the_table_is_made(tmp_path):
    path = tmp_path / "on.csv"
    path.write_text("client,from_round,to_round\nclient-1,2,2\nclient-4,2,3\n")
    results = simulate(
        "digits",
        overrides=[*SMALL, "methods=fedavg", f"sampling.availability={path}"],
        rounds=4,
        out=tmp_path / "run",
        workers=1,
    )
    trained = results.clients.dropna(subset="train_loss")
    assert trained.groupby("round").client.agg(set).to_dict() == {
        2: {"client-1", "client-4"},
        3: {"client-4"},
    }
    known = results.clients[results.clients.method == "fedavg"].groupby("round")["global"].mean()
    assert known[3] == known[4]
    assert set(results.selected.values()) <= {2, 3}
    assert results.table.accuracy.notna().any()


def test_without_settings_it_is_the_run_it_was():
    plain, line = load_scenario("digits", ["training.engine=loop"]), load_scenario("digits").methods[0]
    same = identity(plain, line, 0)
    for change, is_same in (("kind=uniform", True), ("dropout=0.0", True), ("dropout=0.1", False)):
        found = load_scenario("digits", ["training.engine=loop", f"sampling.{change}"])
        assert (identity(found, line, 0) == same) is is_same


def test_what_makes_no_sense_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match="candidates are of kind 'loss', not 'size'"):
        load_scenario("digits", ["sampling.kind=size", "sampling.candidates=3"])
    scenario = load_scenario("digits", ["sampling.kind=size"])
    with pytest.raises(SettingsError, match=r"\[sampling\] is for fedali simulate: over devices"):
        prepare_scenario(scenario, tmp_path / "run", {}, None)  # type: ignore[arg-type]
