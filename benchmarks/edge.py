"""``make bench-edge``: the edge client against torch; time, memory, disk, and whether both learn the same.

Each measurement is a process of its own with one thread. Repetitions are interleaved: every contender trains every
workload once before the first does again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import edge_report, edge_size
from benchmarks.edge_parity import MODELS
from benchmarks.edge_train import CONTENDERS, EdgeOrder
from benchmarks.edge_workloads import BATCH, WORKLOADS
from benchmarks.measure import machine, versions
from benchmarks.processes import ROOT, Launcher, leave_nothing

_IMPORTS = 7
_PACKAGES = ("onnxruntime", "torch", "numpy", "onnx", "onnxscript", "grpcio", "protobuf", "cryptography")


class Bench:
    """Fills ``results`` part by part, and writes them to ``path`` after each."""

    def __init__(self, launcher: Launcher, results: dict[str, Any], path: Path, quick: bool) -> None:
        self.launcher, self.results, self.path, self.quick = launcher, results, path, quick

    def do(self, parts: list[str]) -> None:
        """Measure ``parts``; others are left as they were."""
        for part in parts:
            _say(f"{part}:")
            getattr(self, part)()
            self.results["measured"][part] = {
                "versions": {"python": sys.version.split()[0], **versions(*_PACKAGES)},
                "load": round(os.getloadavg()[0], 2),
            }
            self.path.write_text(json.dumps(self.results, indent=1) + "\n")

    def steps(self) -> None:
        """Time and memory of training."""
        workloads = self._module("edge_prepare", str(self.launcher.scratch))
        runs = []
        for repetition in range(1 if self.quick else 5):
            for name, workload in WORKLOADS.items():
                for contender in CONTENDERS:
                    with tempfile.TemporaryDirectory(dir=self.launcher.scratch) as scratch:
                        steps = 3 if self.quick else workload.steps
                        order = EdgeOrder(contender, name, str(self.launcher.scratch), scratch, steps)
                        answer = self._module("edge_train", order.to_json())
                    runs.append(
                        {"workload": name, "contender": contender, "repetition": repetition, **answer}
                    )
                    _say(
                        f"  {name} {contender}: {1e3 * answer['median']:.3f} ms, {answer['peak_rss'] / 1e6:.0f} MB"
                    )
        self.results["steps"] = {"workloads": workloads, "runs": runs}

    def imports(self) -> None:
        """Time and memory of imports."""
        self.results["imports"] = edge_size.imports(Path(sys.executable), 1 if self.quick else _IMPORTS)

    def size(self) -> None:
        """Disk and packages."""
        self.results["size"] = {
            "x86-64": edge_size.installed(self.launcher.scratch),
            "aarch64": edge_size.wheels(self.launcher.scratch),
        }

    def parity(self) -> None:
        """One step of every model, method and mode."""
        rows: list[Any] = []
        for model in ("mlp",) if self.quick else MODELS:
            rows += self._module("edge_parity", model)["rows"]
        self.results["parity"] = rows

    def people(self) -> None:
        """MotionSense: people held out of a federation, and fifty steps of all parameters."""
        folder = Path(os.environ.get("FEDALI_DATA", ROOT.parent / "shared" / "data"))
        if not (folder / "motionsense.npz").exists():
            self.results["people"] = {"skipped": "MotionSense is not at hand: set FEDALI_DATA"}
            _say(f"  skipped: {self.results['people']['skipped']}")
            return
        os.environ["FEDALI_DATA"] = str(folder)
        found = self._module("edge_people", str(self.launcher.scratch))
        for task in ("person", "fifty"):
            for contender in CONTENDERS[:2]:
                rows = self._module("edge_person", contender, str(self.launcher.scratch), task)["rows"]
                found.setdefault(task, {})[contender] = rows
                accuracies = " ".join(f"{row['after']:.4f}" for row in rows)
                _say(f"  {task} {contender}: {accuracies}")
        self.results["people"] = found

    def _module(self, name: str, *arguments: str) -> dict[str, Any]:
        answer = self.launcher.module(name, *arguments)
        if "failed" in answer:
            raise SystemExit(f"{name} {' '.join(arguments)[:200]} failed: {answer['failed']}")
        answer.pop("peak_memory")
        return answer


PARTS = ("steps", "imports", "size", "parity", "people")


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Measure, then write results and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="others stay as they were"
    )
    parser.add_argument("--quick", action="store_true", help="once, few steps: does it work? changes no page")
    arguments = parser.parse_args()
    leave_nothing()
    path = edge_report.RESULTS.with_name("quick.json") if arguments.quick else edge_report.RESULTS
    results: dict[str, Any] = {"batch": BATCH, "measured": {}}
    if path.exists() and not arguments.quick:
        results = json.loads(path.read_text())
    results["machine"] = machine()
    with tempfile.TemporaryDirectory(prefix="fedali-edge-") as scratch:
        launcher = Launcher(Path(sys.executable), Path(sys.executable), Path(scratch))
        Bench(launcher, results, path, arguments.quick).do(arguments.parts)
    if arguments.quick:
        print(edge_report.page(results))
    else:
        edge_report.write_page()


if __name__ == "__main__":
    main()
