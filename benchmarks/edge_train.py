"""One process that trains, as a contender of ``make bench-edge``; it imports what its contender needs, and no more.

``onnxruntime`` is the edge client. ``torch`` runs the same step, ``fedali.step``, operation by operation. ``module`` is
the same model trained as PyTorch's tutorials do it: an ``nn.Module``, ``loss.backward()``, ``torch.optim.Adam``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.edge_workloads import WORKLOADS

CONTENDERS = ("onnxruntime", "torch", "module")


@dataclass(frozen=True)
class EdgeOrder:
    """What to do: ``workload`` is in ``folder``; the state of the edge client goes to ``scratch``."""

    contender: str
    workload: str
    folder: str
    scratch: str
    steps: int

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))


def train_onnxruntime(order: EdgeOrder) -> list[float]:
    """Times at which steps were done, through ``EdgeClient.fit``, which keeps its state in a file as always."""
    from fedali_client import EdgeClient

    folder, marks = Path(order.folder), [time.perf_counter()]
    given = np.load(folder / f"{order.workload}.npz")
    path = folder / f"{order.workload}.fedali"
    with EdgeClient.open(path, order.scratch, allow_unsigned=True) as client:
        epochs = -(-order.steps * client.manifest.batch // len(given["x"]))
        client.fit(given["x"], given["y"], epochs, progress=lambda _: marks.append(time.perf_counter()))
    return marks[1:]


def train_torch(order: EdgeOrder) -> list[float]:
    """Times at which steps were done, on the same batches."""
    import torch

    from benchmarks.edge_torch import prepare

    given = np.load(Path(order.folder) / f"{order.workload}.npz")
    x, y = torch.from_numpy(given["x"]), torch.from_numpy(given["y"])
    step = prepare(WORKLOADS[order.workload], order.contender, x, y)
    marks = []
    for number in range(order.steps):
        step(number)
        marks.append(time.perf_counter())
    return marks


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise OSError("this system does not tell peak memory")


def main() -> None:
    """Print seconds of steps, the first left out, and memory as one line of JSON."""
    order = EdgeOrder(**json.loads(sys.argv[1]))
    marks = (train_onnxruntime if order.contender == "onnxruntime" else train_torch)(order)
    seconds = np.diff(marks)
    loaded = sorted({"torch", "onnxruntime"} & set(sys.modules))
    facts = {
        "median": float(np.median(seconds)),
        "mean": float(np.mean(seconds)),
        "steps": len(seconds),
        "peak_rss": peak_memory(),
        "loaded": loaded,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
