"""A network from a file beside a scenario: trained, exported, and made again by who may run its code; the example as it stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from fedali.errors import BundleError
from fedali_server.export.bundle_source import model_of
from fedali_simulations import simulate
from fedali_simulations.federate.exporting import export

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, classes, width):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes))
"""


@pytest.mark.slow
def test_from_a_file_to_a_bundle(tmp_path, monkeypatch):
    (tmp_path / "net_of_a_scenario.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    settings = [
        "model.name=net_of_a_scenario:Net",
        "model.options.width=8",
        "model.adapt.trainable=head and norms",
    ]
    settings += [
        "partition.clients=4",
        "training.epochs=1",
        "training.engine=loop",
        "methods=fedper",
        "seeds=1",
    ]
    results = simulate("digits", overrides=settings, rounds=1, out=tmp_path / "run", workers=1)
    assert set(results.table["measure"]) >= {"personalisation", "generalisation"}
    bundle = export(tmp_path / "run", tmp_path / "own.fedali", batch=4)
    names = bundle.manifest.layouts.parameters.names
    assert names == ("body.2.weight", "body.2.bias", "head.weight", "head.bias")
    again, once_more = (model_of(bundle, doors=True) for _ in range(2))
    for one, other in zip(again.buffers(), once_more.buffers(), strict=True):
        assert torch.equal(one, other)
    x = torch.randn(3, 1, 8, 8)
    run = bundle.parts["infer.onnx"]
    theta = torch.from_numpy(bundle.state()["theta"])
    with torch.no_grad():
        for name, value in again.named_parameters():
            value.copy_(again.parameter_layout.unflatten(theta)[name])
        expected = again(x).logits
    session = onnxruntime.InferenceSession(run, providers=["CPUExecutionProvider"])
    given = {"theta": theta.numpy(), "local_prototypes": torch.empty(0).numpy(), "x": x.numpy()}
    (found,) = session.run(None, {**given, "influence": torch.tensor(0.0).numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4
    )  # the constants are the run's
    with pytest.raises(BundleError, match="its code is not run here"):
        model_of(bundle)


@pytest.mark.slow
def test_the_example_runs_elsewhere(tmp_path):
    example = Path(__file__).parents[3] / "examples" / "own_model.py"
    shutil.copy(example, tmp_path)
    done = subprocess.run(
        [sys.executable, example.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "batch normalisation, 1 layer: by groups" in done.stdout
    assert "fedavg personalisation" in " ".join(done.stdout.split())
