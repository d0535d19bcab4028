"""What this machine can do with a bundle, found by doing it, and what to choose."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fedali.bundle.file import Bundle
from fedali.errors import FedaliError, MissingExtraError
from fedali.version import __version__
from fedali_client.state.slots import boot_id

CPU = "CPUExecutionProvider"  # graphs.py has it too, and may not be imported here: see _Probes

_WORTH = 0.85  # more threads, or another provider, have to be this much faster to be advised
_REMOTE = ("AzureExecutionProvider",)  # would send data away
_PATIENCE = 600.0  # seconds for one probe
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


def doctor(bundle: Bundle, path: Path, state: Path, *, as_json: bool = False) -> None:
    """Print what ``examine`` finds. Raises ``FedaliError`` where nothing can be trained here."""
    facts = examine(bundle, path, state)
    if as_json:
        print(json.dumps(facts), flush=True)  # noqa: T201
    else:
        print("\n".join(_lines(facts, bundle.manifest.batch)), flush=True)  # noqa: T201
    if facts["choose"] is None:
        raise FedaliError("no graph of this bundle runs here; install another version of onnxruntime")


def _lines(facts: dict[str, Any], batch: int) -> list[str]:
    lines = [f"{name:16} {value}" for name, value in facts["machine"].items()]
    for name, found in facts["providers"].items():
        lines.append(f"{name:24} {found if isinstance(found, str) else f'{found:.2f} ms a step'}")
    for row in facts["threads"]:
        step, one = row["step_ms"], row["predict_ms"]
        lines.append(
            f"{row['threads']} thread{'s' * (row['threads'] > 1)}: {step:.2f} ms a step of {batch}, {one:.2f} ms a prediction"
        )
    return [*lines, *facts["warnings"], *([f"choose: {facts['choose']}"] if facts["choose"] else [])]


def examine(bundle: Bundle, path: Path, state: Path) -> dict[str, Any]:
    """The machine, each provider tried by a real step, speed with 1, 2, ... threads, warnings, and what to choose.

    Args:
        bundle: that was read and verified.
        path: of its file.
        state: the folder that models would be kept in.

    What is tried has a process of its own each time: a provider that crashes is a line of the answer. ``choose`` is None where
    nothing runs.
    """
    probes = _Probes(bundle, path)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = _memory()
    place = next(one for one in (state, *state.absolute().parents) if one.exists())
    disk = shutil.disk_usage(place).free
    warnings, providers, rows = [], dict[str, float | str](), list[dict[str, float]]()
    known = probes.ask("providers")
    if isinstance(known, str):
        warnings.append(f"warning: onnxruntime cannot be used, its import {known}")
    else:
        for name in known["providers"]:
            remote = name in _REMOTE
            providers[name] = "not tried: it sends data to a service" if remote else probes.ask("step", name)
        for count in sorted({1, *(2**k for k in range(1, 8) if 2**k <= cores), cores}):
            found = probes.ask("threads", str(count))
            if isinstance(found, str):
                warnings.append(f"warning: with {count} threads it {found}")
            else:
                rows.append(found)
        if CPU not in providers:
            warnings.append("warning: this onnxruntime has no CPU provider")
    if not boot_id():
        warnings.append(
            "warning: this system does not tell when it started: a killed fit goes on from its latest checkpoint"
        )
    if disk < 64 * bundle.manifest.layouts.parameters.size:
        warnings.append(f"warning: {disk >> 20} MB are free on the disk of {place}")
    return {
        "machine": {
            "fedali": __version__,
            "python": platform.python_version(),
            "onnxruntime": _installed() if isinstance(known, str) else known["onnxruntime"],
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


def _advice(providers: dict[str, float | str], rows: list[dict[str, float]]) -> str | None:
    words, fastest = None, float("inf")
    for row in rows:
        if row["step_ms"] < _WORTH * fastest:
            fastest, words = row["step_ms"], f"--threads {row['threads']}"
    for name, speed in providers.items():
        if name != CPU and isinstance(speed, float) and speed < _WORTH * fastest:
            fastest, words = speed, f"--provider {name}"
    return words and f"{words} ({1000 / fastest:.0f} steps a second)"


class _Probes:
    """Questions to ``fedali_client.probe``. This process never imports onnxruntime: there are machines on which that kills."""

    def __init__(self, bundle: Bundle, path: Path) -> None:
        self._words = [sys.executable, "-m", "fedali_client.probe", str(path), bundle.digest]

    def ask(self, *words: str) -> Any:
        """What it prints, or as text what became of it."""
        try:
            done = subprocess.run(
                [*self._words, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"does not come back within {_PATIENCE:.0f} s"
        if done.returncode < 0:
            number = -done.returncode
            how = signal.strsignal(number) or "unknown"
            return f"dies of signal {number} ({how.lower()})"
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            if "No module named 'onnxruntime'" in last or "onnxruntime is not installed" in last:
                raise MissingExtraError("onnxruntime", "client")
            return f"fails: {last.removeprefix('error: ')[:160]}"
        return json.loads(lines[-1])


def _installed() -> str:
    """The installed onnxruntime, asked without importing it."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _memory() -> tuple[int, int]:
    """Bytes of memory in all and available; 0 where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in text.splitlines()}
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)
