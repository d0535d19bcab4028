"""The edge client on a machine without torch, against what torch made of the same bundles elsewhere.

``make test-edge-matrix`` runs this with the oldest and the newest onnxruntime, ``make edge-arm64`` on an emulated ARM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedali_client import EdgeClient
from tests.device.recorded import CASES

FOLDER = os.environ.get("FEDALI_DEVICE_CASES")
NAMES = sorted(path.stem for path in (Path(FOLDER) / CASES).glob("*.fedali")) if FOLDER else []

pytestmark = pytest.mark.skipif(not FOLDER, reason="make test-edge-matrix prepares these cases and runs them")


def opened(name, folder):
    path = Path(FOLDER) / CASES / f"{name}.fedali"
    return EdgeClient.open(path, folder, allow_unsigned=True), dict(np.load(path.with_suffix(".npz")))


def relative(found, expected, start=0.0):
    """Distance by that of what is expected from where it started; 0 where nothing moved at all."""
    away, size = (np.linalg.norm(np.float64(v)) for v in (found - expected, expected - start))
    return away if size == 0 else away / size


def test_there_are_cases_and_no_torch():
    assert len(NAMES) == 16
    for package in ("torch", "scipy", "flwr"):
        with pytest.raises(ModuleNotFoundError):
            __import__(package)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_of_torch(name, tmp_path):
    client, known = opened(name, tmp_path)
    with client:
        found = client.predict_proba(known["x"])
        alone = np.concatenate([client.predict_proba(window[None]) for window in known["x"]])
    raised = np.exp(known["logits"] - known["logits"].max(1, keepdims=True))
    assert relative(found, raised / raised.sum(1, keepdims=True)) <= 1e-5
    np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_that_of_torch(name, tmp_path):
    client, known = opened(name, tmp_path)
    with client:
        report = client.fit(known["x"], known["y"], epochs=1)
        found = {key: value.copy() for key, value in client._state.slots.current.items()}
    assert report.steps == 1
    assert report.loss == pytest.approx(float(known["loss"]), rel=1e-5)
    assert relative(found["first_moment"], known["first_moment"]) <= 1e-5  # that is, the gradient
    assert relative(found["second_moment"], known["second_moment"]) <= 1e-4
    # Adam's first step is the gradient's sign: noise where the gradient is, as of a bias before a norm.
    size = np.abs(known["first_moment"])
    clear = size > 1e-3 * size.max()
    assert clear.mean() > 0.5
    theta, expected, start = (v[clear] for v in (found["theta"], known["theta"], known["start_theta"]))
    assert relative(theta, expected, start) <= 1e-3
    if found["local_prototypes"].size:
        moved = relative(found["local_prototypes"], known["local_prototypes"], known["start_prototypes"])
        assert moved <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_prototypes_move_without_labels_as_in_torch(name, tmp_path):
    client, known = opened(name, tmp_path)
    if "adapted" not in known:
        client.close()
        pytest.skip("nothing of it moves without labels")
    with client:
        client.adapt(known["x"])
        found = client._state.local_prototypes.copy()
    assert relative(found, known["adapted"], known["start_prototypes"]) <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_training_learns_and_gives_the_same_bits_twice(name, tmp_path):
    ends = []
    for folder in ("a", "b"):
        client, known = opened(name, tmp_path / folder)
        with client:
            first = client.fit(known["x"], known["y"], epochs=1).loss
            last = client.fit(known["x"], known["y"], epochs=60).loss
            ends.append((client._state.theta(), client._state.local_prototypes.copy()))
        assert last < first
    for one, other in zip(*ends, strict=True):
        assert one.tobytes() == other.tobytes()


FIT = """
import os, sys
import numpy as np
from fedali_client import EdgeClient
path, folder, epochs = sys.argv[1:]
known = np.load(path.replace(".fedali", ".npz"))
with EdgeClient.open(path, folder, allow_unsigned=True) as client:
    client.fit(known["x"], known["y"], int(epochs), progress=lambda now: os.write(1, b"."))
"""


@pytest.mark.parametrize("name", ["cnn1d-fedali", "cnn1d-fedali-paper", "hart-fedali-head"])
def test_a_killed_fit_goes_on_and_ends_with_the_same_bits(name, tmp_path):
    path, epochs = str(Path(FOLDER) / CASES / f"{name}.fedali"), 400
    client, known = opened(name, tmp_path / "whole")
    with client:
        client.fit(known["x"], known["y"], epochs)
        expected = client._state.theta()
    words = [sys.executable, "-c", FIT, path, str(tmp_path / "killed"), str(epochs)]
    for steps in (3, 40, 90):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert len(process.stdout.read(steps)) == steps
        process.kill()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    client, _ = opened(name, tmp_path / "killed")
    with client:
        assert client.status().fits == 1
        assert client.status().steps == epochs
        assert client._state.theta().tobytes() == expected.tobytes()
