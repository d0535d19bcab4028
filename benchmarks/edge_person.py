"""One contender trains on what ``benchmarks.edge_people`` wrote: ``python -m benchmarks.edge_person CONTENDER FOLDER TASK``.

A task is ``person`` (head mode, 5 epochs, each person held out) or ``fifty`` (all parameters, fifty steps, each seed). It
prints accuracies on test windows before and after, and the seconds that training took with all that belongs to it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Given = dict[str, npt.NDArray[Any]]
EPOCHS = {"person": 5, "fifty": 1}
BUNDLES = {"person": "people.fedali", "fifty": "fifty.fedali"}


def on_device(bundle: Path, given: Given, epochs: int) -> dict[str, float]:
    """By the edge client, in a state folder of its own."""
    from fedali_client import EdgeClient

    with (
        tempfile.TemporaryDirectory() as state,
        EdgeClient.open(bundle, state, allow_unsigned=True) as client,
    ):
        if "theta" in given:
            manifest = client.manifest
            client.receive(given["theta"], given["prototypes"], manifest.round, manifest.hyper.influence)
        before = client.evaluate(given["x_test"], given["y_test"]).accuracy
        clock, cpu = time.perf_counter(), time.process_time()
        client.fit(given["x"], given["y"], epochs)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        after = client.evaluate(given["x_test"], given["y_test"]).accuracy
    return {"before": before, "after": after, "seconds": seconds, "cpu_seconds": cpu}


def in_torch(bundle: Path, given: Given, epochs: int) -> dict[str, float]:
    """By ``fedali.step``, from the same parameters and on the same batches."""
    import torch

    from benchmarks.edge_torch import Personal

    torch.set_num_threads(1)
    personal = Personal(bundle, given.get("theta"), given.get("prototypes"))
    before = personal.accuracy(given["x_test"], given["y_test"])
    clock, cpu = time.perf_counter(), time.process_time()
    personal.fit(given["x"], given["y"], epochs)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    after = personal.accuracy(given["x_test"], given["y_test"])
    return {"before": before, "after": after, "seconds": seconds, "cpu_seconds": cpu}


def main() -> None:
    """Print one row for each file of the task."""
    contender, folder, task = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    train = on_device if contender == "onnxruntime" else in_torch
    rows = []
    for path in sorted(folder.glob(f"{task}-*.npz")):
        with np.load(path) as file:
            given = dict(file)
        rows.append({"samples": len(given["y"]), **train(folder / BUNDLES[task], given, EPOCHS[task])})
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
