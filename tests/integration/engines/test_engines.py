"""Every engine gives what the readable one gives."""

from __future__ import annotations

import ast
import gc
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.capture.structure import CAPTURING, _sources, structure_key
from fedali.data import Normalisation
from fedali.engines.base import Query, Samples, TrainJob
from fedali.engines.compiled import CompiledEngine, batch_sizes
from fedali.engines.compiler import compile_graphs, compiler
from fedali.engines.loop import LoopEngine
from fedali.engines.stacked import StackedEngine
from fedali.methods import build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector

MODELS = {
    "mlp": ((12,), {"hidden": (8, 6)}),
    "cnn1d": ((32, 6), {"channels": (16, 16), "hidden": 5}),
    "cnn2d": ((1, 8, 8), {"kernel": 3, "channels": (16, 16), "embedding": 6}),
    "hart": ((32, 6), {"dim": 32, "kernels": (3, 7), "hidden": 16}),
}
METHODS = [*("fedali-paper", "fedali-head", "fedali-kmeans", "l2only", "fedavg", "fedper", "local")]
WITH_SLOTS = [
    *("fedprox", "fedrep", "ditto", "scaffold", "moon", "fedproto", "fedntd", "fedrod", "fedbabu", "fedala"),
    *("apfl", "pfedme", "feddbe", "fedpac-align"),
]
ALP = ALPSettings(num_prototypes=(4,), decay=0.7, scale=3.0)
NORMALISATION = Normalisation(np.float32(0.1), np.float32(1.5))


def _model(name, alp=ALP):
    shape, options = MODELS[name]
    return shape, build_model(name, shape, 3, alp=alp, seed=1, **options)


def _samples(shape, count, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape)).astype(np.float16)
    return Samples(x, rng.integers(0, 3, count), NORMALISATION)


def _jobs(model, shape, counts, *, dtype=np.float64, method=None):
    rng = np.random.default_rng(0)
    slots = () if method is None else method.slots
    theta = initial_vector(model.facts, slots, model.theta().numpy()).astype(dtype)
    prototypes = rng.standard_normal((3, model.prototype_layout.size)).astype(dtype)
    return [
        TrainJob(
            _samples(shape, count, seed),
            theta + dtype(1e-2) * rng.standard_normal(theta.shape).astype(dtype),
            prototypes[1],
            theta,
            prototypes[2],
            0.3,
            np.random.SeedSequence([7, seed]),
        )
        for seed, count in enumerate(counts)
    ]


def _assert_same(expected, found, tolerance):
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b.theta, a.theta, rtol=0, atol=tolerance)
        np.testing.assert_allclose(b.local_prototypes, a.local_prototypes, rtol=0, atol=tolerance)
        assert b.loss == pytest.approx(a.loss, rel=1e-6)
        assert b.accuracy == pytest.approx(a.accuracy)
        assert (a.occupancy is None) == (b.occupancy is None)
        if a.occupancy is not None:
            np.testing.assert_array_equal(a.occupancy, b.occupancy)


def _engines(kind, model, shape, method, optimizer, training, **more):
    epochs, batch = training
    recipe = Recipe(model, method, optimizer, shape, epochs + method.extra_epochs, batch, 0.7)
    loop = LoopEngine(recipe, dtype=torch.float64)
    other = {
        "stacked": lambda: StackedEngine(recipe, dtype=torch.float64, device="cpu", cohort_size=3),
        "compiled": lambda: CompiledEngine(recipe, dtype=torch.float64, workers=2, **more),
    }[kind]()
    return loop, other


CASES = [("mlp", method) for method in METHODS + WITH_SLOTS]
CASES += [("cnn1d", "fedrod"), ("cnn2d", "fedbn"), ("cnn1d", "fedala")]
CASES += [
    (name, method) for name in ("cnn1d", "cnn2d", "hart") for method in ("fedali-paper", "l2only", "fedavg")
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_stacked_clients_equal_the_loop_after_twenty_steps(name, method):
    method = build_method(method, {})
    shape, model = _model(name, ALP if method.uses_prototypes else None)
    jobs = _jobs(model, shape, (25, 40, 9, 32), method=method)  # the longest takes 20 steps
    loop, stacked = _engines("stacked", model, shape, method, Adam(1e-3), (4, 8))
    _assert_same(loop.train(jobs), stacked.train(jobs), 1e-10)


@settings(max_examples=8)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=7),
    batch=st.integers(1, 12),
    epochs=st.integers(1, 3),
    momentum=st.sampled_from([None, 0.0, 0.9]),
)
def test_stacking_works_for_any_sizes(counts, batch, epochs, momentum):
    shape, model = _model("mlp")
    optimizer = Adam(1e-3) if momentum is None else SGD(1e-2, momentum)
    jobs = _jobs(model, shape, counts)
    training = (epochs, batch)
    method = build_method("fedali-paper", {"masses": "occupancy"})
    loop, stacked = _engines("stacked", model, shape, method, optimizer, training)
    _assert_same(loop.train(jobs), stacked.train(jobs), 1e-10)


def test_stacked_predictions_equal_the_loop():
    shape, model = _model("cnn1d")
    jobs = _jobs(model, shape, (20, 11))
    loop, stacked = _engines("stacked", model, shape, build_method("fedali-paper", {}), Adam(), (1, 8))
    for matcher in ("cosine", "ot"):
        queries = [
            Query(job.theta, job.local_prototypes, tuple(j.samples for j in jobs), 0.3, matcher)
            for job in jobs
        ]
        for expected, found in zip(loop.predict(queries), stacked.predict(queries), strict=True):
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)  # Ray's own
@pytest.mark.slow
def test_processes_of_a_ray_cluster_equal_the_loop():
    from fedali.engines.ray import RayEngine

    shape, model = _model("mlp")
    method = build_method("fedali-paper", {"masses": "occupancy"})
    jobs = _jobs(model, shape, (25, 4, 9, 32), dtype=np.float32)
    recipe = Recipe(model, method, Adam(), shape, 2, 8, 0.7)
    loop, spread = LoopEngine(recipe), RayEngine(recipe, workers=2, inner="loop")
    try:
        trained = list(loop.train(jobs))
        for expected, found in zip(trained, spread.train(jobs), strict=True):
            np.testing.assert_array_equal(expected.theta, found.theta)
            np.testing.assert_array_equal(expected.occupancy, found.occupancy)
        queries = [Query(t.theta, t.local_prototypes, tuple(j.samples for j in jobs), 0.3) for t in trained]
        for expected, found in zip(loop.predict(queries), spread.predict(queries), strict=True):
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        spread.close()
        gc.collect()  # while ray's open files are no error


needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


COMPILED = [("mlp", "fedali-paper")]  # compiling takes a while: `make parity` compiles them all
if os.environ.get("FEDALI_PARITY") == "all":
    COMPILED = [(name, method) for name in MODELS for method in METHODS + WITH_SLOTS]
    COMPILED += [("cnn2d", "fedbn")]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("name", "method"), COMPILED)
def test_the_compiled_step_equals_the_loop_after_twenty_steps(name, method, cache):
    """Without prototypes there is a graph for each quarter of a batch: of a small batch they are fewer."""
    method = build_method(method, {"masses": "occupancy"} if method == "fedali-paper" else {})
    training = (4, 8) if method.uses_prototypes else (1, 2)
    shape, model = _model(name, ALP if method.uses_prototypes else None)
    jobs = _jobs(model, shape, (25, 40, 9, 32), method=method)
    loop, compiled = _engines("compiled", model, shape, method, Adam(1e-3), training, cache=cache)
    trained = list(loop.train(jobs))
    _assert_same(trained, compiled.train(jobs), 1e-10)
    made = sorted(cache.iterdir())
    again = CompiledEngine(compiled.recipe, dtype=torch.float64, cache=cache)
    assert sorted(cache.iterdir()) == made  # nothing was compiled twice
    _assert_same(trained, again.train(jobs), 1e-10)
    queries = [
        Query(t.theta[: model.theta().numel()], t.local_prototypes, tuple(j.samples for j in jobs), 0.3, m)
        for t in trained
        for m in ("cosine", "ot")
    ]
    for expected, found in zip(loop.predict(queries), compiled.predict(queries), strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_large_products_are_onednns_and_one_float32_step_equals_the_loops(tmp_path):
    model = build_model("mlp", (128,), 3, alp=ALP, seed=1, hidden=(256, 256))
    jobs = _jobs(model, (128,), (64, 60), dtype=np.float32)
    recipe = Recipe(model, build_method("fedali-paper"), SGD(1.0), (128,), 1, 64, 0.7)
    loop, compiled = LoopEngine(recipe), CompiledEngine(recipe, cache=tmp_path)
    assert any(b"aoti_torch_cpu__linear_pointwise" in path.read_bytes() for path in tmp_path.glob("*.so"))
    for job, expected, found in zip(jobs, loop.train(jobs), compiled.train(jobs), strict=True):
        gradient = expected.theta - job.theta
        error = np.linalg.norm(found.theta - expected.theta) / np.linalg.norm(gradient)
        assert np.linalg.norm(gradient) > 0
        assert error < 1e-5
        np.testing.assert_allclose(found.local_prototypes, expected.local_prototypes, rtol=1e-5, atol=1e-6)


def test_smaller_batches_only_where_they_change_nothing():
    layers = _model("cnn1d")[1].alp_layers
    assert batch_sizes(layers, 7) == (7, 6, 4, 2)  # k is 1 for all with 4 prototypes
    assert batch_sizes(layers, 8) == (8,)  # 2 tokens a prototype, or 1
    assert batch_sizes(layers, 11) == (11, 9)
    assert batch_sizes([], 64) == (64, 48, 32, 16)
    assert batch_sizes([], 64, parts=2) == (64, 32)
    assert batch_sizes([], 3) == (3, 2, 1)
    assert batch_sizes([], 1) == (1,)


@needs_compiler
def test_a_compiler_that_fails_is_named_in_one_line(tmp_path, monkeypatch):
    from fedali.capture.captures import capture_predict
    from fedali.errors import FedaliError

    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho no more disk >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    shape, model = _model("mlp", None)
    graph = capture_predict(model, matcher="cosine", input_shape=shape, batch=2)
    with pytest.raises(FedaliError, match=r"compiler failed.*engine 'loop'"):
        compile_graphs(lambda: [graph], tmp_path / "cache")


def test_the_key_of_a_graph_knows_every_source_that_makes_one():
    """What captures a graph is in the list, or a model, a method or an optimizer, or has no part in a graph."""
    no_part = {
        "errors",
        "version",
        "support.files",
        "bundle.manifest",
        "metrics",
        "transport.solvers",
        "transport.assignment",
        "transport.distances",
        "recipe",
        "capture.unknown",
    }
    classes = {"models", "methods", "methods.base", "tasks", "tasks.base"}
    waiting, reached = (
        [f"capture.{name}" for name in ("captures", "decompositions_onnx", "onnx_export", "onnx_translate")],
        set(),
    )
    while waiting:
        name = waiting.pop()
        reached.add(name)
        spec = importlib.util.find_spec(f"fedali.{name}")
        for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedali."):
                module = node.module.removeprefix("fedali.")
                if module not in reached and module not in classes | no_part:
                    waiting.append(module)
    assert reached | {"models.own.plain"} == set(CAPTURING)  # which adapted networks run in
    _, model = _model("cnn1d")
    files = {path for module in model.modules() for path in _sources(type(module))}
    assert {path.name for path in files} == {"cnn1d.py", "base.py", "alp.py"}
    assert {path.name for path in _sources(type(build_method("fedali-paper")))} == {
        "fedali_paper.py",
        "base.py",
    }


def test_the_key_of_a_graph_knows_all_that_changes_it():
    shape, model = _model("cnn1d")
    method, optimizer = build_method("fedali-paper", {}), Adam()
    key = structure_key(model, method, optimizer, 8)
    other_seed = build_model("cnn1d", shape, 3, alp=ALP, seed=2, **MODELS["cnn1d"][1])
    assert structure_key(other_seed, method, optimizer, 8) == key
    others = [
        structure_key(_model("cnn1d", ALPSettings(num_prototypes=(4,), scale=2.0))[1], method, optimizer, 8),
        structure_key(_model("cnn1d", None)[1], method, optimizer, 8),
        structure_key(model, build_method("fedavg", {}), optimizer, 8),
        structure_key(model, method, Adam(beta1=0.8), 8),
        structure_key(model, method, optimizer, 9),
        structure_key(
            build_model("cnn1d", shape, 3, alp=ALP, seed=1, channels=(16, 16), kernel=3), method, optimizer, 8
        ),
    ]
    assert len({key, *others}) == 1 + len(others)
    model.register_buffer("scale", torch.ones(2))
    with_buffer = structure_key(model, method, optimizer, 8)
    model.scale[0] = 2
    assert structure_key(model, method, optimizer, 8) != with_buffer
    model.table = {"a": object()}
    assert structure_key(model, method, optimizer, 8) is None
