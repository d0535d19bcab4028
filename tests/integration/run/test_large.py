"""What large federations rest on: few clients a round, models in files, tests of some, kills at any moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedali.errors import MissingExtraError
from fedali_server.run.folder import read_best
from fedali_simulations import load_scenario, profiling
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job

CLIENTS = 200
RUN = """
import sys
from pathlib import Path
from fedali_simulations import load_scenario
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job

scenario = load_scenario(sys.argv[1])
run_job(Job(scenario, scenario.methods[0], 0, Path(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two hundred clients of twelve samples; ten train in a round."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], CLIENTS * 6)
    x = (y[:, None] + rng.normal(size=(len(y), 16))).astype(np.float16)
    np.savez(folder / "tiny.npz", x=x, y=y, client=np.repeat(np.arange(CLIENTS), 12))
    (folder / "tiny.toml").write_text(f"""
        methods = "fedali-head"
        data.source = "{folder / "tiny.npz"}"
        split.order = "random"
        model.name = "mlp"
        alp.num_prototypes = 4
        training = {{ rounds = 6, epochs = 8, batch_size = 8, participation = 0.05, engine = "loop" }}
        evaluation = {{ transductive = false, generalisation_every = 2 }}
    """)
    return folder / "tiny.toml"


def _run(folder, tiny, *overrides):
    scenario = load_scenario(tiny, overrides)
    run_job(Job(scenario, scenario.methods[0], 0, folder))
    return folder


def _wait(process, condition):
    while not condition():
        assert process.poll() is None
        time.sleep(0.002)


def _files(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "done.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _metrics(folder):
    return [pd.read_parquet(path) for path in sorted((folder / "metrics").iterdir())]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    return _run(tmp_path_factory.mktemp("whole"), tiny)


def test_killed_while_clients_train_and_resumed_gives_the_bits_of_an_uninterrupted_run(tiny, whole, tmp_path):
    folder = tmp_path / "cut"
    records = folder / "clients.f32"
    for rounds in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", RUN, tiny, folder])
        _wait(process, (folder / f"metrics/{rounds:05d}.parquet").exists)
        size = records.stat().st_size
        _wait(process, lambda size=size: records.stat().st_size > size)  # by clients of the next round
        process.kill()
        assert process.wait() == -signal.SIGKILL
    _run(folder, tiny)
    expected = _files(whole)
    assert _files(folder) == expected
    assert {"clients.f32", "clients.json", "best.safetensors"} <= set(expected)


def test_the_file_of_the_clients_is_as_large_as_those_who_trained(whole):
    names = {name for rows in _metrics(whole) for name in rows.dropna(subset="train_loss").client}
    assert 30 < len(names) < CLIENTS / 2
    table = load_file(whole / "checkpoint.safetensors")
    assert len(table["store.clients"]) == len(names)
    head = load_file(next((whole / "personal").iterdir()))
    record = 4 * sum(value.size for name, value in head.items() if name.startswith("head."))
    assert (whole / "clients.f32").stat().st_size <= 2 * record * len(names)


def test_best_models_of_the_last_round_are_the_personal_ones(tiny, tmp_path):
    folder = _run(
        tmp_path / "run", tiny, "training.rounds=2", "training.participation=0.2", "training.epochs=1"
    )
    metrics = _metrics(folder)
    assert [rows.train_loss.notna().sum() for rows in metrics] == [40, 40]
    best = folder / "best.safetensors"
    kinds = pd.Series([name.split("/")[-1] for name in load_file(best)]).value_counts()
    assert kinds["theta"] == kinds["local_prototypes"] == 40  # who trained
    assert 20 < kinds["personal"] <= 40  # who trained only before
    for path in (folder / "personal").iterdir():
        personal = load_file(path)
        theta, prototypes = read_best(best, path.stem)
        values = [value.ravel() for name, value in personal.items() if name != "alp.0"]
        assert np.array_equal(np.sort(np.concatenate(values)), np.sort(theta)), path.stem
        assert np.array_equal(personal["alp.0"].ravel(), prototypes)


def test_some_are_tested_on_everyone(tiny, whole, tmp_path):
    some = _run(tmp_path / "some", tiny, "evaluation.generalisation_clients=3")
    drawn = []
    for rows, expected in zip(_metrics(some), _metrics(whole), strict=True):
        assert ("generalisation" in rows) == ("generalisation" in expected)
        if "generalisation" in rows:
            tested = rows.generalisation.notna()
            assert tested.sum() == 3
            pd.testing.assert_frame_equal(rows[tested], expected[tested])
            drawn.append(tuple(rows[tested].client))
        for name in ("client", "train_loss", "samples"):
            pd.testing.assert_series_equal(rows[name], expected[name])
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("keep", ["personal", "none"])
def test_models_are_kept_as_asked(tiny, whole, tmp_path, keep):
    folder = _run(tmp_path / keep, tiny, f"training.keep_models={keep}")
    expected = _files(whole)
    left_out = {"personal": ("best",), "none": ("best", "personal")}[keep]
    assert _files(folder) == {n: data for n, data in expected.items() if not n.startswith(left_out)}


def test_a_profiler_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    with pytest.raises(MissingExtraError, match=r"pyinstrument is not installed.*fedali\[sim\]"):
        profiling.make_profiler()
