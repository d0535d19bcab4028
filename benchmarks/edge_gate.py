"""What an answer by the gate costs on a device, beside one by the trained model: time and memory of a prediction, time of making it.

    python -m benchmarks.edge_gate

Prints a table. Each measurement is a process of its own with one thread, five times in turns; numbers are the smallest of the processes'
medians, so that other work on the machine counts least.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import Launcher

MODELS, METHODS = ("cnn1d", "hart"), ("fedavg", "fedali")
WINDOWS, TIMES = 500, 200
_HEADING = "| model | answers by | one window, ms | 32 windows, ms | peak memory, MB | after a fit of 500 windows, s |"


def main() -> None:
    """Measure everything, or with words one thing."""
    if len(sys.argv) > 1:
        print(json.dumps(_measured(Path(sys.argv[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="fedali-edge-") as scratch:
        folder = Path(scratch)
        launcher = Launcher(Path(sys.executable), Path(sys.executable), folder)
        paths = {
            (model, method): folder / f"{model}-{method}.fedali" for model in MODELS for method in METHODS
        }
        for (model, method), path in paths.items():
            _export(model, method, path)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in paths}
        for _ in range(5):
            for pair, path in paths.items():
                answer = launcher.module("edge_gate", str(path))
                if "failed" in answer:
                    raise SystemExit(f"{path.stem} failed: {answer['failed']}")
                found[pair].append(answer)
    print(f"{_HEADING}\n|{'---|' * 6}")
    for (model, method), runs in found.items():
        one, many, memory, after = (
            min(run[name] for run in runs) for name in ("one", "many", "memory", "after")
        )
        made = f"{after:.2f}" if method == "fedali" else "–"
        what = "the gate" if method == "fedali" else "the trained model"
        print(f"| `{model}` | {what} | {1e3 * one:.3f} | {1e3 * many:.2f} | {memory / 1e6:.0f} | {made} |")


def _export(model: str, method: str, path: Path) -> None:
    from benchmarks.edge_bundles import fresh_source
    from fedali_server.export.bundle_export import export_bundle

    source = fresh_source(model, (), method)
    slot = np.random.default_rng(1).random((64, source.model.facts.embedding), np.float32).reshape(-1)
    if method == "fedali":
        theta = np.concatenate([source.start.theta[: -slot.size], slot])
        source = replace(source, start=replace(source.start, theta=theta, shared_theta=theta))
    export_bundle(path, source)


def _measured(path: Path) -> dict[str, float]:
    """Of a device that has just trained, in a process that only predicts."""
    from benchmarks.edge_train import peak_memory
    from fedali_client import EdgeClient

    state = path.parent / path.stem
    random = np.random.default_rng(0)
    x = random.standard_normal((WINDOWS, 128, 6)).astype(np.float32)
    if not state.exists():
        with EdgeClient.open(path, state, allow_unsigned=True) as client:
            client.fit(x, random.integers(0, 6, WINDOWS), 1)
        return _again(path)
    with EdgeClient.open(path, state, allow_unsigned=True, read_only=True) as client:
        seconds = {}
        for name, part in (("one", x[:1]), ("many", x[:32])):
            client.predict_proba(part)
            marks = [time.perf_counter()]
            for _ in range(TIMES):
                client.predict_proba(part)
                marks.append(time.perf_counter())
            seconds[name] = float(np.median(np.diff(marks)))
        memory = peak_memory()
    after = 0.0
    if client._gating is not None:
        with EdgeClient.open(path, state, allow_unsigned=True) as client:
            began = time.perf_counter()
            client._gating.settle(x, x[:0])
            after = time.perf_counter() - began
    return {**seconds, "memory": float(memory), "after": after}


def _again(path: Path) -> dict[str, float]:
    """In a fresh process: this one has trained."""
    import subprocess

    words = [sys.executable, "-m", "benchmarks.edge_gate", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
