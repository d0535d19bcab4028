"""The process of one contender: takes an order, prints one line of JSON."""

from __future__ import annotations

import importlib
import json
import sys

import torch

from benchmarks.measure import adopt_orphans, cpu_seconds
from benchmarks.order import Order, Outcome

OURS = "fedali-"
_MODULES = {"flower-ray": "benchmarks.contender_ray", "pfl": "benchmarks.contender_pfl"}


def run(order: Order) -> Outcome:
    """Run ``order`` in this process."""
    module = "benchmarks.contender_fedali" if order.contender.startswith(OURS) else _MODULES[order.contender]
    outcome: Outcome = importlib.import_module(module).run(order)
    return outcome


def main() -> None:
    """Read the order from the command line; a reason to skip is an answer too."""
    order = Order(**json.loads(sys.argv[1]))
    adopt_orphans()
    torch.set_num_threads(1)
    try:
        answer = {**run(order).to_json(order), "cpu_seconds_in_all": cpu_seconds()}
    except Exception as error:
        if type(error).__name__ != "MissingEngineError":
            raise
        answer = {"contender": order.contender, "workload": order.workload, "skipped": str(error)}
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
