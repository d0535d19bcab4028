"""What a graph of a bundle does in onnxruntime, tried in a process of its own: a provider may end the process that tries it.

``python -m fedali_client.probe BUNDLE DIGEST providers | step PROVIDER | threads N`` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from fedali.bundle.file import Bundle, read_bundle
from fedali.errors import BundleError, FedaliError
from fedali_client.compute.graphs import BoundGraph, Runtime, open_session

_BUDGET = 1.0  # seconds for one measurement, at least three runs


def main(words: list[str]) -> None:
    """Do what ``words`` say, of a bundle whose signature whoever asks has verified: ``DIGEST`` is that of its manifest."""
    path, digest, what, *rest = words
    bundle = read_bundle(path, None, allow_unsigned=True)
    if bundle.digest != digest:
        raise BundleError(f"{path} has just become another file")
    probes: dict[str, Callable[..., Any]] = {"providers": _providers, "step": _step, "threads": _threads}
    tried = probes[what](bundle, *rest)
    print(json.dumps(tried), flush=True)  # noqa: T201


def _providers(_: Bundle) -> dict[str, Any]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


def _step(bundle: Bundle, provider: str) -> float | str:
    """Milliseconds of a step, or why there is none."""
    try:
        session = open_session(bundle, "train.onnx", Runtime(1, provider))
        if session.get_providers()[0] != provider:
            return "does not start here: its libraries or its device are missing"
        return _milliseconds(bundle, "train", Runtime(1, provider))
    except (FedaliError, RuntimeError) as error:
        return f"fails: {str(error).splitlines()[0][:120]}"


def _threads(bundle: Bundle, count: str) -> dict[str, float]:
    runtime = Runtime(int(count))
    return {
        "threads": runtime.threads,
        "step_ms": _milliseconds(bundle, "train", runtime),
        "predict_ms": _milliseconds(bundle, "infer", runtime),
    }


def _milliseconds(bundle: Bundle, graph: str, runtime: Runtime) -> float:
    """Median of a run of ``graph`` on random samples; of ``infer`` one sample where the graph takes one."""
    session = open_session(bundle, f"{graph}.onnx", runtime)
    random, state = np.random.default_rng(0), bundle.state()
    inputs: dict[str, Any] = {}
    for value in session.get_inputs():
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        dtype = np.int64 if "int64" in value.type else np.float32
        if (
            value.name in state
        ):  # a graph takes what it needs of it; times do not depend on which numbers it gets
            inputs[value.name] = np.resize(state[value.name], shape)
        elif value.name == "x":
            inputs["x"] = random.standard_normal(shape).astype(np.float32)
        else:
            start = {"y": 0, "first_moment": 0, "second_moment": 0, "step_size": 1e-3}.get(value.name, 0.5)
            inputs[value.name] = np.full(shape, start, dtype)
    outputs = {}
    for value in session.get_outputs():
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        outputs[value.name] = np.empty(shape, np.float32)
    bound = BoundGraph(session, inputs, outputs)
    bound.run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < _BUDGET and len(times) < 50):
        began = time.perf_counter()
        bound.run()
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FedaliError as error:
        sys.exit(f"error: {error}")
