"""The edge client as devices treat it: killed, unplugged, stopped, full. Real processes, real signals, real files."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fedali_client import EdgeClient
from fedali_client.observations import Observations
from tests.bundles import SHAPE
from tests.e2e.edge.commands import CLIENT, client, complaint, look, unplug

EPOCHS = 3000
# Fits, and writes the number of each step to a pipe after it was committed. A checkpoint now and then, so that some
# kills fall into its writing.
FIT = f"""
import os, struct, sys
import numpy as np
from fedali_client import EdgeClient
from fedali_client.compute import trainer
trainer.SAVE_EVERY = 0.02
path, folder, data, pipe = sys.argv[1:]
arrays = np.load(data)
with EdgeClient.open(path, folder, allow_unsigned=True) as client:
    client.fit(arrays["x"], arrays["y"], {EPOCHS},
               progress=lambda now: os.write(int(pipe), struct.pack("<q", now.step)))
"""


@pytest.mark.slow
def test_a_fit_killed_fifty_times_ends_with_the_bits_of_one_that_was_not(home, tmp_path):
    random.seed(0)
    x, y = (np.load(home / "data.npz")[name] for name in "xy")
    with EdgeClient.open(home / "m.fedali", tmp_path / "whole", allow_unsigned=True) as whole:
        whole.fit(x, y, EPOCHS)
        expected = whole._state.theta()
        prototypes = whole._state.local_prototypes.copy()
    folder, kills, reached, unplugged = tmp_path / "killed", 0, 0, 0
    while True:
        read, write = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", FIT, home / "m.fedali", folder, home / "data.npz", str(write)],
            pass_fds=[write],
        )
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            if kills < 50:
                if kills % 5:  # at any moment of training; every fifth at any moment of starting
                    pipe.read(8)
                    time.sleep(random.uniform(0, 0.04))
                else:
                    time.sleep(random.uniform(0, 0.4))
                process.kill()
            done = pipe.read()
        code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        last = int.from_bytes(done[len(done) // 8 * 8 - 8 :][:8], "little") if len(done) >= 8 else reached
        now = look(home, folder).progress.step
        assert now >= max(last, reached), (now, last, reached)
        reached = now
        if kills % 7 == 0:
            unplug(folder)
            reached, unplugged = look(home, folder).progress.step, unplugged + 1
    assert kills == 50
    assert unplugged == 7
    state = look(home, folder)
    assert state.progress.fit == 1
    assert state.progress.step == EPOCHS * 8
    assert state.progress.steps == EPOCHS * 8
    assert (state.theta() == expected).all()
    assert (state.local_prototypes == prototypes).all()


OBSERVE = """
import sys
import numpy as np
from fedali_client import EdgeClient
path, folder = sys.argv[1:]
with EdgeClient.open(path, folder, allow_unsigned=True, capacity=50) as client:
    shape = client.manifest.input_shape
    for number in range(10**9):
        client.observe(np.full(shape, number % 1000, np.float32), number % 3 if number % 4 else None)
        sys.stdout.write(f"{number % 1000}\\n")
        sys.stdout.flush()
"""


def test_observations_survive_kills(home, tmp_path):
    random.seed(1)
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", OBSERVE, home / "m.fedali", tmp_path / "s"],
            stdout=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        last = process.stdout.read().split("\n")[-2:][0]
        process.stdout.close()
        process.wait()
        (path,) = (tmp_path / "s").glob("*/observations")
        store = Observations(path, SHAPE)
        assert len(store) <= 50
        x = store.labelled()[0]
        everything = [*x, *store.unlabelled()]
        assert all((window == window.flat[0]).all() for window in everything)
        if last:
            assert float(last) in {float(window.flat[0]) for window in everything}
        store.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_says_how_to_go_on_and_saves(home, tmp_path, number):
    base = ["m.fedali", "--state", str(tmp_path), "--allow-unsigned"]
    words = ["fit", *base, "--data", "data.npz", "--epochs", "20000"]
    process = subprocess.Popen([*CLIENT, *words], cwd=home, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*/training.map")) or not look(home, tmp_path).progress.step:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert errors.startswith("fedali-client: stopped after step ")
    assert errors.strip().endswith("of 160000; the same command goes on from there")
    step = look(home, tmp_path).progress.step
    assert f"after step {step} of" in errors
    unplug(tmp_path)  # it was saved
    assert look(home, tmp_path).progress.step == step


def test_a_full_disk_is_one_line_and_loses_nothing(home, tmp_path):
    base = ["m.fedali", "--state", tmp_path / "s", "--allow-unsigned"]
    client("fit", *base, "--data", "data.npz", "--epochs", 2, cwd=home)
    before = look(home, tmp_path / "s").theta()

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = client("fit", *base, "--data", "data.npz", "--epochs", 3, cwd=home, code=1, preexec_fn=small)
    assert "checkpoint.safetensors: File too large" in complaint(done)
    unplug(tmp_path / "s")
    assert (look(home, tmp_path / "s").theta() == before).all()
    done = client(
        "fit",
        "m.fedali",
        "--state",
        tmp_path / "new",
        "--allow-unsigned",
        "--data",
        "data.npz",
        cwd=home,
        code=1,
        preexec_fn=small,
    )
    assert "training.map: File too large" in complaint(done)
    report = json.loads(client("fit", *base, "--data", "data.npz", "--epochs", 3, "--json", cwd=home).stdout)
    assert report["fit"] == 2


def test_a_disk_that_fills_up_while_training(home, tmp_path):
    """On a real file system of a few pages, where that may be mounted."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(where)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        words = [
            "fit",
            "m.fedali",
            "--state",
            where / "s",
            "--allow-unsigned",
            "--data",
            "data.npz",
            "--json",
        ]
        for kilobytes, name in ((40, "training.map"), (24, "checkpoint.safetensors")):
            (where / "filler").write_bytes(bytes(kilobytes << 10))
            done = client(*words, cwd=home, code=1)
            assert f"{name}: the disk is full" in complaint(done)
        (where / "filler").unlink()
        assert json.loads(client(*words, cwd=home).stdout)["fit"] == 2  # the first was done, and not saved
    finally:
        subprocess.run(["umount", str(where)], check=True)
