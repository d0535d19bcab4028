"""Networks that know nothing of FedAli: the engines train them as the loop does, and devices get their graphs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from fedali import adapt
from fedali.bundle.file import read_bundle
from fedali.bundle.manifest import Component
from fedali.data import Normalisation
from fedali.engines.base import Samples, TrainJob
from fedali.engines.loop import LoopEngine
from fedali.engines.onnx import OnnxEngine
from fedali.engines.stacked import StackedEngine
from fedali.errors import SettingsError
from fedali.methods import build_method
from fedali.models import ALPSettings
from fedali.optimizers.rules import SGD
from fedali.recipe import Recipe
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.parity import ALLOWED
from fedali_server.export.source import Start
from tests.integration.export.sources import source
from tests.marks import slow
from tests.networks import SMALL

ALP = ALPSettings(num_prototypes=(4,), decay=0.7, scale=3.0)


def _recipe(name, method="fedali-paper", **settings):
    make, shape = SMALL[name]
    torch.manual_seed(0)
    alp = ALP if method == "fedali-paper" else None
    model = adapt(make(), **settings).build(shape, 3, alp)
    return Recipe(model, build_method(method), SGD(1e-2), shape, 1, 4, 0.7)


def _jobs(recipe):
    rng = np.random.default_rng(0)
    model, jobs = recipe.model, []
    local, shared = rng.standard_normal((2, model.prototype_layout.size)).astype(np.float32)
    theta = model.theta().numpy()
    for client, count in enumerate((6, 4)):
        x = rng.standard_normal((count, *recipe.input_shape)).astype(np.float16)
        samples = Samples(x, rng.integers(0, 3, count), Normalisation(np.float32(0), np.float32(1)))
        seed = np.random.SeedSequence([7, client])
        jobs.append(TrainJob(samples, theta, local, theta, shared, 0.3, seed))
    return jobs


def _assert_as_the_loop(recipe, engine):
    jobs = _jobs(recipe)
    for job, one, other in zip(jobs, LoopEngine(recipe).train(jobs), engine.train(jobs), strict=True):
        way = np.linalg.norm(one.theta - job.theta)
        assert np.linalg.norm(one.theta - other.theta) < 2e-5 * way
        np.testing.assert_allclose(other.local_prototypes, one.local_prototypes, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "name", slow(("gru", "encoder", "mobilenetv2", "vit"), lambda name: name not in ("gru", "encoder"))
)
def test_clients_side_by_side_train_as_in_the_loop(name):
    recipe = _recipe(name)
    _assert_as_the_loop(recipe, StackedEngine(recipe, device="cpu"))


@pytest.mark.slow
def test_onnxruntime_trains_as_the_loop(tmp_path):
    recipe = _recipe("lstm", "fedavg")
    _assert_as_the_loop(recipe, OnnxEngine(recipe, cache=tmp_path))


class Twisted(nn.Module):
    """Has an operation that nobody wrote a rewrite for."""

    def __init__(self):
        super().__init__()
        self.warp, self.fc = Warp(), nn.Linear(3 * 64, 3)

    def forward(self, x):
        return self.fc(self.warp(x).flatten(1))


class Warp(nn.Module):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.eye(2, 3))

    def forward(self, x):
        grid = F.affine_grid(self.turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_named_with_its_module(tmp_path):
    model = adapt(Twisted()).build((3, 8, 8), 3)
    recipe = Recipe(model, build_method("fedavg"), SGD(1e-2), (3, 8, 8), 1, 4)
    with pytest.raises(
        SettingsError, match=r"no ONNX for .*grid_sampler_2d_backward.* in (body\.)?warp: engines loop"
    ):
        OnnxEngine(recipe, cache=tmp_path)


@pytest.mark.slow
def test_a_device_gets_what_trains_and_the_rest_as_constants(tmp_path):
    recipe = _recipe("mobilenetv2", "fedavg", trainable="head")
    model = recipe.model
    theta = model.theta().numpy()
    start = Start(theta, np.zeros(0, np.float32), theta + np.float32(0.01), np.zeros(0, np.float32))
    given = dataclasses.replace(
        source("mlp", "fedavg"),
        model=model,
        component=Component("my_nets:Net", {"adapt": {"trainable": "head"}}),
        optimizer=SGD(1e-2),
        start=start,
        input_shape=recipe.input_shape,
    )
    export_bundle(tmp_path / "own.fedali", given, batch=4)
    bundle = read_bundle(tmp_path / "own.fedali", None, allow_unsigned=True)
    assert bundle.manifest.layouts.parameters.names == ("head.weight", "head.bias")
    assert all(parity.error <= ALLOWED for parity in bundle.manifest.parity.values())
    assert len(bundle.parts["infer.onnx"]) > 4 * sum(b.numel() for b in model.buffers())
