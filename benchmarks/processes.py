"""Starts contenders, each in a process and environment of its own, and takes their answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import MemoryWatch, tree
from benchmarks.order import Order

ROOT = Path(__file__).parent.parent
_LONGEST = 900  # seconds a run may take
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Launcher:
    """Runs modules of this package in fresh processes.

    Args:
        python: interpreter of our environment.
        pfl_python: interpreter of pfl's.
        scratch: folder for data, caches and whatever contenders write; caches are empty when a bench begins.
    """

    python: Path
    pfl_python: Path
    scratch: Path

    def contender(self, order: Order) -> dict[str, Any]:
        """Run ``order``; its answer with ``peak_memory`` in bytes, or ``failed`` with the last line of its errors."""
        python = self.pfl_python if order.contender == "pfl" else self.python
        order = replace(order, started=time.monotonic())
        return self.module("contender", json.dumps(asdict(order)), python=python)

    def module(self, name: str, *arguments: str, python: Path | None = None) -> dict[str, Any]:
        """Run one of this package's modules; the JSON object it prints last."""
        errors = self.scratch / "errors.txt"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [python or self.python, "-m", f"benchmarks.{name}", *arguments],
                cwd=ROOT,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
            )
            watch = MemoryWatch(process.pid)
            try:
                printed, _ = process.communicate(timeout=_LONGEST)
            except subprocess.TimeoutExpired:
                printed = ""
                errors.write_text(f"it took longer than {_LONGEST} s")
            finally:
                _end(process)
            peak = watch.stop()
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            said = errors.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
            return {"failed": said[-1].replace(str(ROOT), "").replace(str(self.scratch), "")}
        return {**json.loads(lines[-1]), "peak_memory": peak}

    def _environment(self) -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        caches = {
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch / "cache" / "inductor"),
            "FLWR_HOME": str(self.scratch / "flwr"),
            "RAY_TMPDIR": str(self.scratch),
        }
        return {**os.environ, **_QUIET, **threads, **caches, "PYTHONPATH": str(ROOT)}


def leave_nothing() -> None:
    """Let a request to end this process raise, so that processes and folders are cleaned up as after Ctrl-C."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def _end(process: subprocess.Popen[str]) -> None:
    """End what is left of a process and everything below it."""
    for pid in reversed(tree(process.pid)):
        if pid != process.pid or process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
