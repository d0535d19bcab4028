"""The edge client as devices treat it: killed, unplugged, full, alone. Real processes, real signals, real files."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedali.bundle.file import read_bundle
from fedali_client import EdgeClient
from fedali_client.observations import Observations
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import boot_id
from tests.bundles import CLASSES, SHAPE, toy_data, write_full

CLIENT = [sys.executable, "-m", "fedali_client"]
BLOCKED = ("torch", "flwr", "scipy", "sklearn", "pandas", "ot", "matplotlib", "onnx", "typer", "grpc")
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


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a bundle and data."""
    folder = tmp_path_factory.mktemp("home")
    write_full(folder / "m.fedali")
    x, y = toy_data(60)
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "named.npz", x=x, y=np.array(CLASSES)[y])
    return folder


def client(*words, cwd, code=0, **options):
    done = subprocess.run(
        [*CLIENT, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def complaint(done):
    """The one line of a failed command."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def look(home, folder):
    """The state in ``folder`` as another process sees it."""
    bundle = read_bundle(home / "m.fedali", None, allow_unsigned=True)
    return PersonalState(folder / bundle.digest[:16], bundle, read_only=True)


def unplug(folder):
    """The machine starts again: the mapped file is of another boot, and what it held is anything."""
    (path,) = folder.glob("*/training.map")
    data = bytearray(path.read_bytes().replace(boot_id(), b"2" * 36))
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


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


def test_it_runs_without_torch_and_its_family(home, tmp_path):
    program = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "fedali-client"
from fedali_client.cli import main
main()
"""
    base = ["m.fedali", "--state", str(tmp_path), "--allow-unsigned"]
    for words in (
        ["fit", *base, "--data", "data.npz"],
        ["predict", *base, "--data", "data.npz"],
        ["evaluate", *base, "--data", "named.npz"],
        ["observe", *base, "--data", "named.npz", "--train"],
        ["doctor", *base],
        ["info", *base],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=home, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_nothing_is_kept_or_told_elsewhere(home, tmp_path):
    """onnxruntime's telemetry makes a folder in the user's cache before it sends anything."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    environment["HOME"] = str(tmp_path)
    words = ["m.fedali", "--allow-unsigned", "--data", "data.npz"]
    for command in ("fit", "predict"):
        client(command, *words, cwd=home, env=environment)
    assert [path.name for path in tmp_path.iterdir()] == [".fedali"]


def test_commands_and_their_json(home, tmp_path):
    base = ["m.fedali", "--state", tmp_path, "--allow-unsigned"]
    report = json.loads(client("fit", *base, "--data", "named.npz", "--epochs", 3, "--json", cwd=home).stdout)
    assert (report["fit"], report["steps"], report["samples"]) == (1, 24, 60)
    facts = json.loads(client("info", *base, "--json", cwd=home).stdout)
    assert facts["state"]["fits"] == 1
    assert facts["classes"] == list(CLASSES)
    found = json.loads(client("evaluate", *base, "--data", "data.npz", "--json", cwd=home).stdout)
    answers = [
        json.loads(line)
        for line in client("predict", *base, "--data", "data.npz", cwd=home).stdout.splitlines()
    ]
    labels = np.load(home / "named.npz")["y"]
    right = [answer["label"] == label for answer, label in zip(answers, labels, strict=True)]
    assert np.mean(right) == pytest.approx(found["accuracy"])
    facts = json.loads(client("doctor", *base, "--json", cwd=home).stdout)
    assert facts["threads"][0]["step_ms"] > 0
    assert facts["providers"]["CPUExecutionProvider"] > 0
    assert "--threads" in facts["choose"]
    assert "whole: 3 parts, NOT verified" in client("verify", *base, cwd=home).stdout
    for words in (
        ["-h"],
        *([name, "-h"] for name in ("info", "verify", "fit", "predict", "evaluate", "observe", "doctor")),
    ):
        assert "fedali-client" in client(*words, cwd=home).stdout.split("example", 1)[1]


def test_a_stream_is_answered_line_by_line(home, tmp_path):
    words = ["predict", "m.fedali", "--state", str(tmp_path), "--allow-unsigned"]
    process = subprocess.Popen(
        [*CLIENT, *words],
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    x, _ = toy_data(3)
    answers = []
    for line in (
        json.dumps({"x": x[0].tolist()}),
        json.dumps(x[1].tolist()),
        "[[1, 2]]",
        json.dumps(x[2].tolist()),
    ):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answers.append(json.loads(process.stdout.readline()))  # before the next line is sent
    _, errors = process.communicate()
    assert process.returncode == 2
    assert len(errors.splitlines()) == 2
    assert [sorted(answer) for answer in answers] == [
        ["label", "probability"],
        ["label", "probability"],
        ["error"],
        ["label", "probability"],
    ]
    assert "line 3 has shape [1, 2]; this model takes [n, 24, 3]" in answers[2]["error"]


def test_a_prediction_needs_no_pause_of_training_and_a_second_training_is_refused(home, tmp_path):
    base = ["m.fedali", "--state", str(tmp_path), "--allow-unsigned"]
    process = subprocess.Popen([*CLIENT, "fit", *base, "--data", "data.npz", "--epochs", "1000000"], cwd=home)
    try:
        while not list(tmp_path.glob("*/training.map")) or not look(home, tmp_path).progress.step:
            assert process.poll() is None
            time.sleep(0.05)
        for command in ("fit", "observe"):
            done = client(command, *base, "--data", "data.npz", cwd=home, code=1)
            assert f"in use by process {process.pid}" in complaint(done)
        assert len(client("predict", *base, "--data", "data.npz", cwd=home).stdout.splitlines()) == 60
        assert "step" in client("info", *base, cwd=home).stdout
    finally:
        process.kill()
        process.wait()


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


def test_wrong_words_are_one_line(home, tmp_path):
    base = ["m.fedali", "--state", tmp_path]
    np.savez(tmp_path / "unlabelled.npz", x=toy_data(3)[0])
    for words, line in (
        (["info", *base], "no key to verify it with"),
        (["fit", *base, "--allow-unsigned", "--data", tmp_path / "unlabelled.npz"], "has no labels"),
        (["fit", *base, "--allow-unsigned", "--data", "missing.npz"], "missing.npz does not exist"),
        (["fit", *base, "--allow-unsigned"], "arguments are required: --data; try: fedali-client fit -h"),
        (["fit", *base, "--data", "data.npz", "--epochs", "0"], "'0' is no whole number of at least 1"),
        (["info", "missing.fedali", "--allow-unsigned", "--state", tmp_path], "cannot read"),
        (["info", "data.npz", "--allow-unsigned", "--state", tmp_path], "refused"),
        (["train"], "invalid choice: 'train'"),
        (["verify", *base, "--key", "missing.pub"], "missing.pub"),
        (
            ["predict", *base, "--allow-unsigned", "--data", "data.npz", "--provider", "CUDA"],
            "no provider 'CUDA'",
        ),
    ):
        done = client(*words, cwd=home, code=2)
        assert line in complaint(done), done.stderr
        assert done.stdout == ""


def test_reading_half_of_the_answers_is_no_error(home, tmp_path):
    words = ["predict", "m.fedali", "--state", str(tmp_path), "--allow-unsigned", "--data", "data.npz"]
    process = subprocess.Popen(
        [*CLIENT, *words], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() in (0, 1)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_the_state_is_for_its_owner_alone(home, tmp_path):
    client("fit", "m.fedali", "--state", tmp_path / "s", "--allow-unsigned", "--data", "data.npz", cwd=home)
    (folder,) = (tmp_path / "s").iterdir()
    assert Path(folder).stat().st_mode & 0o777 == 0o700


def test_the_sensor_loop_predicts_observes_and_learns(home, tmp_path):
    """The example that people start from: numbers in, answers out, a label file in between."""
    loop = Path(__file__).parents[3] / "client/examples/sensor_loop.py"
    (tmp_path / "label").write_text("walk\n")
    length, channels = SHAPE
    samples = np.random.default_rng(0).standard_normal((length * 12, channels))
    lines = [",".join(f"{value:.5f}" for value in row) for row in samples]
    lines.insert(5, "no numbers")
    words = ["--bundle", home / "m.fedali", "--allow-unsigned", "--state", tmp_path / "s"]
    words += ["--label-file", tmp_path / "label", "--train-every", "10", "--overlap", "0.5"]
    done = subprocess.run(
        [sys.executable, loop, *map(str, words)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 23  # windows that overlap by half
    assert all(answer["given"] == "walk" and answer["label"] in CLASSES for answer in answers)
    assert "skipped, not numbers: 'no numbers'" in done.stderr
    assert done.stderr.count("trained on") == 2
    assert answers[-1]["label"] == "walk"
    (path,) = (tmp_path / "s").glob("*/observations")
    assert Observations(path, SHAPE).counts() == {1: 23}
    assert look(home, tmp_path / "s").progress.fit == 2
