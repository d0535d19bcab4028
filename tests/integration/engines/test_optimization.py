"""Decay, clipping and a round's learning rate: every engine gives what the readable one gives."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedali.data import Normalisation
from fedali.engines.base import Samples, TrainJob
from fedali.engines.compiled import CompiledEngine
from fedali.engines.loop import LoopEngine
from fedali.engines.onnx import OnnxEngine
from fedali.engines.stacked import StackedEngine
from fedali.methods import build_method
from fedali.models import build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector
from tests.marks import compiling, slow

SHAPE, BATCH, FACTOR = (12,), 7, 0.3
ADAMW, L2 = Adam(1e-2, weight_decay=0.5, clip_norm=0.5), SGD(5e-2, 0.9, weight_decay=0.1, clip_norm=0.5)


def _recipe(method, optimizer):
    model = build_model("mlp", SHAPE, 3, alp=None, seed=1, hidden=(8,))
    made = build_method(*method)
    return Recipe(model, made, optimizer, SHAPE, 2 + made.extra_epochs, BATCH)


def _jobs(recipe, dtype=np.float32, factor=FACTOR):
    rng = np.random.default_rng(0)
    theta = initial_vector(recipe.model.facts, recipe.method.slots, recipe.model.theta().numpy()).astype(
        dtype
    )
    nothing = np.zeros(0, dtype)
    return [
        TrainJob(
            Samples(
                rng.standard_normal((count, *SHAPE)).astype(np.float32),
                rng.integers(0, 3, count),
                Normalisation(np.float32(0.0), np.float32(1.0)),
            ),
            *(theta, nothing, theta, nothing, 0.0),
            np.random.SeedSequence([7, client]),
            factor,
        )
        for client, count in enumerate((25, 9))
    ]


def _assert_same(expected, found, tolerance):
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b.theta, a.theta, rtol=0, atol=tolerance)
        assert b.loss == pytest.approx(a.loss, rel=1e-4)


def test_each_of_them_changes_what_a_client_learns():
    def thetas(optimizer, factor=FACTOR):
        recipe = _recipe(("fedavg", {}), optimizer)
        return next(iter(LoopEngine(recipe).train(_jobs(recipe, factor=factor)))).theta

    for optimizer in (ADAMW, L2):
        with_all = thetas(optimizer)
        for other in (replace(optimizer, weight_decay=0.0), replace(optimizer, clip_norm=0.0)):
            assert np.abs(thetas(other) - with_all).max() > 1e-4
        slower = replace(optimizer, learning_rate=FACTOR * optimizer.learning_rate)
        np.testing.assert_array_equal(thetas(slower, 1.0), with_all)


CASES = {
    "adamw": (("fedavg", {}), ADAMW),
    "phases": (("fedrep", {}), ADAMW),
    "a mixture": (("apfl", {"adaptive": True}), L2),
    "a step size after training": (("scaffold", {}), L2),
}


@pytest.mark.parametrize("case", CASES)
def test_stacked_clients_are_those_of_the_loop(case):
    recipe = _recipe(*CASES[case])
    jobs = _jobs(recipe, np.float64)
    stacked = StackedEngine(recipe, device="cpu", dtype=torch.float64)
    _assert_same(LoopEngine(recipe, dtype=torch.float64).train(jobs), stacked.train(jobs), 1e-10)


@pytest.mark.parametrize("case", slow(CASES, lambda case: case != "adamw"))
def test_clients_of_onnxruntime_are_those_of_the_loop(case, tmp_path):
    recipe = _recipe(*CASES[case])
    jobs = _jobs(recipe)
    _assert_same(LoopEngine(recipe).train(jobs), OnnxEngine(recipe, cache=tmp_path).train(jobs), 1e-5)


@compiling
@pytest.mark.slow
def test_compiled_clients_are_those_of_the_loop(tmp_path):
    recipe = _recipe(*CASES["phases"])
    jobs = _jobs(recipe)
    _assert_same(LoopEngine(recipe).train(jobs), CompiledEngine(recipe, cache=tmp_path).train(jobs), 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)  # Ray's own
def test_a_round_has_its_rate_in_other_processes_too():
    from fedali.engines.ray import RayEngine

    recipe = _recipe(*CASES["adamw"])
    jobs, spread = _jobs(recipe), RayEngine(recipe, workers=1, inner="loop")
    try:
        _assert_same(LoopEngine(recipe).train(jobs), spread.train(jobs), 0)
    finally:
        spread.close()
        gc.collect()  # while ray's open files are no error
