"""The edge client's command in real processes, alone: what it says, keeps and needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedali_client.observations import Observations
from tests.bundles import CLASSES, SHAPE, toy_data
from tests.e2e.edge.commands import CLIENT, client, complaint, look

BLOCKED = ("torch", "flwr", "scipy", "sklearn", "pandas", "ot", "matplotlib", "onnx", "typer", "grpc")


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


def test_wrong_words_are_one_line(home, tmp_path):
    base = ["m.fedali", "--state", tmp_path]
    np.savez(tmp_path / "unlabelled.npz", x=toy_data(3)[0])
    for words, line in (
        (["info", *base], "no key to verify it with"),
        (
            ["fit", *base, "--allow-unsigned", "--data", tmp_path / "unlabelled.npz"],
            "lacks the array 'y'; it holds x",
        ),
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
