"""Tasks on every engine: each gives what the readable one gives."""

import numpy as np
import pytest
import torch

from fedali.data import Normalisation
from fedali.engines.base import Query, Samples, TrainJob
from fedali.engines.compiled import CompiledEngine
from fedali.engines.loop import LoopEngine
from fedali.engines.onnx import OnnxEngine
from fedali.engines.stacked import StackedEngine
from fedali.methods import build_method
from fedali.models import build_model
from fedali.optimizers.rules import Adam
from fedali.recipe import Recipe
from fedali.tasks import build_task
from tests.marks import compiling

TASKS = {
    "weighted": ("classification", {"class_weights": [1, 3, 2], "label_smoothing": 0.1}),
    "labels": ("multi-label", {"positive_weights": [1, 2, 0.5]}),
    "numbers": ("regression", {"error": "huber", "delta": 0.5}),
}


def setting(name, method="ditto"):
    """A recipe, and jobs of clients with 25 and 9 samples."""
    task = build_task(*TASKS[name])
    model = build_model("mlp", (6,), 3, seed=1, hidden=(8,))
    chosen = build_method(method).for_task(task)
    recipe = Recipe(model, chosen, Adam(3e-3), (6,), 3, 8, task=task)
    random = np.random.default_rng(0)
    targets = {
        "classes": lambda n: random.integers(3, size=n),
        "labels": lambda n: random.integers(2, size=(n, 3)).astype(np.float32),
        "numbers": lambda n: random.normal(size=(n, 3)).astype(np.float32),
    }[task.kind]
    theta = np.tile(model.theta().numpy(), recipe.vectors.whole.size // model.parameter_layout.size)
    nothing = np.zeros(0, np.float32)
    jobs = []
    for seed, count in enumerate((25, 9)):
        x = random.normal(size=(count, 6)).astype(np.float32)
        samples = Samples(x, targets(count), Normalisation(np.float32(0.1), np.float32(1.5)))
        jobs.append(TrainJob(samples, theta, nothing, theta, nothing, 0.0, np.random.SeedSequence([seed])))
    return recipe, jobs


@pytest.mark.parametrize("name", TASKS)
def test_stacked_clients_learn_what_the_loop_learns(name):
    recipe, jobs = setting(name)
    expected = list(LoopEngine(recipe, dtype=torch.float64).train(jobs))
    found = list(StackedEngine(recipe, dtype=torch.float64, device="cpu").train(jobs))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.theta, one.theta, rtol=0, atol=1e-10)
        assert (other.loss, other.accuracy) == pytest.approx((one.loss, one.accuracy))
        assert np.abs(one.theta - jobs[0].theta).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "engine"),
    [*((name, OnnxEngine) for name in TASKS), pytest.param("numbers", CompiledEngine, marks=compiling)],
)
def test_graphs_learn_and_say_what_the_loop_does(name, engine, tmp_path):
    recipe, jobs = setting(name)
    loop, other = LoopEngine(recipe), engine(recipe, cache=tmp_path)
    expected, found = list(loop.train(jobs)), list(other.train(jobs))
    for one, another in zip(expected, found, strict=True):
        np.testing.assert_allclose(another.theta, one.theta, rtol=0, atol=2e-5)
        assert (another.loss, another.accuracy) == pytest.approx((one.loss, one.accuracy), rel=1e-4)
    asked = Query(expected[0].theta[: recipe.vectors.model.size], np.zeros(0), (jobs[0].samples,), 0.0)
    ((one,),), ((another,),) = loop.predict([asked]), other.predict([asked])
    np.testing.assert_allclose(another, one, atol=1e-5)
    assert one.shape == jobs[0].samples.y.shape
