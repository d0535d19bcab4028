"""Clients trained by onnxruntime against the same clients trained by the readable engine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fedali.capture.captures import capture_predict
from fedali.capture.onnx_cache import exported
from fedali.data import Normalisation
from fedali.engines.base import Query, Samples, TrainJob
from fedali.engines.loop import LoopEngine
from fedali.engines.onnx import OnnxEngine
from fedali.methods import build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector
from tests.marks import slow

ALP = ALPSettings(num_prototypes=(4,), decay=0.7, scale=3.0)
CASES = {
    "fedali-paper": ("fedali-paper", {"masses": "occupancy"}, Adam(1e-4), ALP),
    **{
        name: (name, {}, SGD(1e-2), None)
        for name in (
            *("fedavg", "fedrep", "ditto", "scaffold", "moon", "fedproto"),
            *("fedntd", "fedrod", "fedala", "fedbabu"),
            *("apfl", "pfedme", "feddbe"),
        )
    },
    "apfl-adaptive": ("apfl", {"adaptive": True}, SGD(1e-2), None),
    "fedpac-align": ("fedpac-align", {}, SGD(1e-2), None),
}
EPOCHS, BATCH = 2, 7  # the last batches are of 7 and of 4


def _jobs(model, shape, method):
    rng = np.random.default_rng(0)
    theta = initial_vector(model.facts, method.slots, model.theta().numpy())
    local, shared = rng.standard_normal((2, model.prototype_layout.size)).astype(np.float32)
    jobs = []
    for client, count in enumerate((25, 3, 9, 17, 7)):
        x = rng.standard_normal((count, *shape)).astype(np.float16)
        samples = Samples(x, rng.integers(0, 3, count), Normalisation(np.float32(0.1), np.float32(1.5)))
        start = theta + 1e-2 * rng.standard_normal(theta.shape).astype(np.float32)
        seed = np.random.SeedSequence([7, client])
        jobs.append(TrainJob(samples, start, local, theta, shared, 0.3, seed))
    return jobs


QUICK = ("fedali-paper", "fedavg", "scaffold", "fedproto", "fedntd", "fedbabu")


@pytest.mark.parametrize("case", slow(CASES, lambda case: case not in QUICK))
def test_clients_equal_those_of_the_loop(case, tmp_path):
    name, options, optimizer, alp = CASES[case]
    method = build_method(name, options)
    epochs = EPOCHS + method.extra_epochs
    shape = (3, 4)
    model = build_model("mlp", shape, 3, alp=alp, seed=1, hidden=(8, 6))
    recipe = Recipe(model, method, optimizer, shape, epochs, BATCH, 0.7)
    jobs, loop = _jobs(model, shape, method), LoopEngine(recipe)

    def onnx(workers):
        return OnnxEngine(recipe, workers=workers, cache=tmp_path)

    engine = onnx(2)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    finishes, measures = 4, 5  # or as many for begin and finish
    graphs = {
        **dict.fromkeys(("scaffold", "moon", "fedbabu", "apfl", "apfl-adaptive"), finishes),
        **dict.fromkeys(("fedproto", "fedrod", "fedala", "feddbe", "fedpac-align"), measures),
    }.get(case, 3)
    assert sorted(path.suffix for path in made) == ["", *[".onnx"] * graphs]
    again = onnx(1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made  # nor captured again
    trained = list(engine.train(jobs))  # all kept: no client may write into another's result
    for job, expected, found in zip(jobs, loop.train(jobs), trained, strict=True):
        np.testing.assert_allclose(found.theta, expected.theta, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.local_prototypes, expected.local_prototypes, rtol=0, atol=1e-4)
        assert not np.array_equal(found.theta, job.theta)
        assert found.loss == pytest.approx(expected.loss, rel=1e-4)
        assert found.accuracy == expected.accuracy
        if expected.occupancy is not None:
            np.testing.assert_array_equal(found.occupancy, expected.occupancy)
    for a, b in zip(trained, again.train(jobs), strict=True):  # the number of workers changes no bit
        np.testing.assert_array_equal(a.theta, b.theta)
        np.testing.assert_array_equal(a.local_prototypes, b.local_prototypes)
        assert (a.loss, a.accuracy) == (b.loss, b.accuracy)
    for matcher in ("cosine", "ot", "euclidean", None):
        queries = [
            Query(
                job.theta[: model.theta().numel()],
                job.local_prototypes,
                tuple(j.samples for j in jobs[i:]),
                0.3,
                matcher,
            )
            for i, job in enumerate(jobs)
        ]
        for expected, found in zip(loop.predict(queries), engine.predict(queries), strict=True):
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    model = build_model("mlp", (4,), 2, hidden=(3,))
    graph = capture_predict(model, matcher=None, input_shape=(4,), batch=2)
    assert exported({"infer": lambda: graph}, "key", blocked)["infer"]


def test_a_graph_that_is_known_is_neither_captured_nor_exported(tmp_path):
    model = build_model("mlp", (4,), 2, hidden=(3,))
    graph = capture_predict(model, matcher=None, input_shape=(4,), batch=2)
    made = []

    def capture():
        made.append(1)
        return graph

    first = exported({"infer": capture}, "key", tmp_path)
    assert exported({"infer": capture}, "key", tmp_path) == first
    assert len(made) == 1
    assert exported({"infer": capture}, "another", tmp_path) == first
    assert exported({"infer": capture}, None, tmp_path) == first
    assert len(made) == 3
    assert len(list(tmp_path.glob("*.onnx"))) == 2


MAKE = """
import sys, time
from pathlib import Path
from fedali.capture.captures import capture_predict
from fedali.models import build_model
from fedali.capture.onnx_cache import exported

folder, out, order = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]

def capture(name):
    with out.open("a") as made:
        made.write(f"{name} {order[0]}\\n")
    time.sleep(0.5)
    return capture_predict(build_model("mlp", (4,), 2, hidden=(3,)), matcher=None, input_shape=(4,), batch=2)

(out.parent / f"ready {order[0]}").touch()
while len(list(out.parent.glob("ready *"))) < 2:
    time.sleep(0.01)
found = exported({name: lambda name=name: capture(name) for name in order}, "key", folder)
assert len({bytes(graph) for graph in found.values()}) == 1
"""


@pytest.mark.slow
def test_two_processes_share_the_work_and_make_no_graph_twice(tmp_path):
    (tmp_path / "cache").mkdir()
    names = ["a", "b", "c", "d"]
    program = [sys.executable, "-c", MAKE, tmp_path / "cache", tmp_path / "made"]
    both = [subprocess.Popen([*map(str, program), *order]) for order in (names, names[::-1])]
    assert [process.wait(120) for process in both] == [0, 0]
    made = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(name for name, _ in made) == names
    assert {who for _, who in made} == {"a", "d"}
