"""What this machine can do with a bundle, found by doing it, and what to choose."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedali.bundle.file import Bundle
from fedali.errors import FedaliError
from fedali.version import __version__
from fedali_client.compute.graphs import CPU, BoundGraph, Runtime, open_session
from fedali_client.state.slots import boot_id

_WORTH = 0.85  # more threads, or another provider, have to be this much faster to be advised
_BUDGET = 1.0  # seconds for one measurement, at least three runs
_REMOTE = ("AzureExecutionProvider",)  # would send data away


def doctor(bundle: Bundle, state: Path, *, as_json: bool = False) -> None:
    """Print what ``examine`` finds."""
    facts = examine(bundle, state)
    if as_json:
        print(json.dumps(facts), flush=True)  # noqa: T201
        return
    lines = [f"{name:16} {value}" for name, value in facts["machine"].items()]
    for name, found in facts["providers"].items():
        lines.append(f"{name:24} {found if isinstance(found, str) else f'{found:.2f} ms a step'}")
    for row in facts["threads"]:
        step, one = row["step_ms"], row["predict_ms"]
        lines.append(
            f"{row['threads']} thread{'s' * (row['threads'] > 1)}: {step:.2f} ms a step of {bundle.manifest.batch}, {one:.2f} ms a prediction"
        )
    lines += [*facts["warnings"], f"choose: {facts['choose']}"]
    print("\n".join(lines), flush=True)  # noqa: T201


def examine(bundle: Bundle, state: Path) -> dict[str, Any]:
    """The machine, each provider tried by a real step, speed with 1, 2, ... threads, warnings, and what to choose."""
    import onnxruntime

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = _memory()
    place = next(path for path in (state, *state.absolute().parents) if path.exists())
    disk = shutil.disk_usage(place).free
    providers: dict[str, float | str] = {}
    for name in onnxruntime.get_available_providers():
        providers[name] = "not tried: it sends data to a service" if name in _REMOTE else _try(bundle, name)
    counts = sorted({1, *(2**k for k in range(1, 8) if 2**k <= cores), cores})
    rows = [
        {
            "threads": n,
            "step_ms": _milliseconds(bundle, "train", Runtime(n)),
            "predict_ms": _milliseconds(bundle, "infer", Runtime(n)),
        }
        for n in counts
    ]
    warnings = []
    if not boot_id():
        warnings.append(
            "warning: this system does not tell when it started: a killed fit goes on from its latest checkpoint"
        )
    need = 16 * bundle.manifest.layouts.parameters.size
    if disk < 4 * need:
        warnings.append(f"warning: {disk >> 20} MB are free on the disk of {place}")
    if "CPUExecutionProvider" not in providers:
        warnings.append("warning: this onnxruntime has no CPU provider")
    return {
        "machine": {
            "fedali": __version__,
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "system": f"{platform.system()} {platform.machine()}",
            "cores": cores,
            "memory": f"{free >> 20} MB free of {total >> 20}" if total else "unknown",
            "disk": f"{disk >> 20} MB free for {state}",
        },
        "providers": providers,
        "threads": rows,
        "warnings": warnings,
        "choose": _advice(providers, rows),
    }


def _advice(providers: dict[str, float | str], rows: list[dict[str, float]]) -> str:
    best = rows[0]
    for row in rows[1:]:
        if row["step_ms"] < _WORTH * best["step_ms"]:
            best = row
    fastest = best["step_ms"]
    chosen = CPU
    for name, speed in providers.items():
        if name != CPU and isinstance(speed, float) and speed < _WORTH * fastest:
            fastest, chosen = speed, name
    words = [f"--threads {best['threads']}"] if chosen == CPU else [f"--provider {chosen}"]
    return " ".join(words) + f" ({1000 / fastest:.0f} steps a second)"


def _try(bundle: Bundle, provider: str) -> float | str:
    """Milliseconds of a step, or why there is none."""
    try:
        session = open_session(bundle, "train.onnx", Runtime(1, provider))
        if session.get_providers()[0] != provider:
            return "does not start here: its libraries or its device are missing"
        return _milliseconds(bundle, "train", Runtime(1, provider))
    except (FedaliError, RuntimeError) as error:
        return f"fails: {str(error).splitlines()[0][:120]}"


def _milliseconds(bundle: Bundle, graph: str, runtime: Runtime) -> float:
    """Median of a run of ``graph`` on random samples; of ``infer`` one sample where the graph takes one."""
    session = open_session(bundle, f"{graph}.onnx", runtime)
    random, state = np.random.default_rng(0), bundle.state()
    state["shared_theta"] = (
        state["shared_theta"][bundle.manifest.trained] if graph == "train" else state["shared_theta"]
    )
    state["theta"] = state["theta"][bundle.manifest.trained] if graph == "train" else state["theta"]
    inputs: dict[str, Any] = {}
    for value in session.get_inputs():
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        dtype = np.int64 if "int64" in value.type else np.float32
        if value.name in state:
            inputs[value.name] = np.ascontiguousarray(state[value.name])
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


def _memory() -> tuple[int, int]:
    """Bytes of memory in all and available; 0 where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in text.splitlines()}
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)
