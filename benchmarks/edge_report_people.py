"""The part of docs/edge-performance.md that is about MotionSense."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.report import _table


def people(found: dict[str, Any]) -> str:
    """Held-out people in mode head, and fifty steps of all parameters."""
    device, torch = (found["person"][name] for name in ("onnxruntime", "torch"))
    rows = [
        (
            name,
            train,
            test,
            f"{100 * a['before']:.2f}",
            f"{100 * a['after']:.2f}",
            f"{100 * b['after']:.2f}",
            f"{a['seconds']:.2f}",
            f"{b['seconds']:.2f}",
        )
        for (name, train, test), a, b in zip(found["people"], device, torch, strict=True)
    ]
    slowest = max(row["cpu_seconds"] for row in device)
    header = (
        "person",
        "training windows",
        "test windows",
        "before, %",
        "device, %",
        "torch, %",
        "device, s",
        "torch, s",
    )
    fifty = found["fifty"]
    pairs = list(zip(fifty["onnxruntime"], fifty["torch"], strict=True))
    apart = [100 * (a["after"] - b["after"]) for a, b in pairs]
    worst = max(map(abs, apart))
    mean = statistics.mean(apart)
    again = [
        (k, f"{100 * a['after']:.2f}", f"{100 * b['after']:.2f}", f"{d:+.2f}")
        for k, ((a, b), d) in enumerate(zip(pairs, apart, strict=True))
    ]
    return "\n".join(
        [
            "## MotionSense\n",
            f"FedAli with `cnn1d` trained {found['rounds']} rounds on {found['trained']} people; those below were held out. Each personalises the "
            "head for 5 epochs, from the exported bundle: through the edge client, and by `fedali.step` in torch on the same batches. Seconds are "
            "for all of it, embeddings and opening of graphs included. Accuracy is on the end of each person's recordings.\n",
            _table(header, rows),
            "",
            f"Slowest on the device: {slowest:.2f} s of one core (bar 5{'' if slowest <= 5 else ', **missed**'}).\n",
            f"Fifty steps of all parameters of `cnn1d`, from scratch, on {fifty['torch'][0]['samples']:,} windows of all people, "
            "the same batches: accuracy on everybody's test windows. "
            f"Largest difference {worst:.2f} points (bar 0.5{'' if worst <= 0.5 else ', **missed**'}), mean {mean:+.2f}.\n",
            _table(("seed", "device, %", "torch, %", "difference, points"), again),
        ]
    )
