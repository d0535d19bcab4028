"""What a device's encoding of its update costs in accuracy, and saves in bytes.

The clients of a scenario train as in a simulation; what they upload goes through ``fedali.wire.messages`` and back on its way to
the sum, in each encoding, with the same seeds, splits and budget. ``--resume`` goes on with what is not measured yet,
``--seconds`` stops before a run that begins later; ``--report`` writes the report of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import encodings_report
from fedali.cohort.contract import RoundSettings
from fedali.cohort.site import CohortSite
from fedali.errors import DataError
from fedali.methods import SharedState, Trained
from fedali.methods.base import shared_indices
from fedali.support.files import write_text
from fedali.wire.messages import ClientUpdate, decode_update, encode_state, encode_update, task_id
from fedali.wire.tensors import Encoding, Vector
from fedali_simulations.environment import environment
from fedali_simulations.scenario import Scenario, load_scenario
from fedali_simulations.setup import build_setup

RESULTS = Path(__file__).parent / "results" / "encodings.json"
PAGE = Path(__file__).parent.parent / "docs" / "encodings.md"
SCENARIOS = {
    "digits": (("fedali-paper", "fedavg"), 10),
    "motionsense": (("fedali-paper", "fedavg"), 5),
}  # methods, seeds
_METRICS = {"train_loss": 1.0, "train_accuracy": 0.5, "validation": 0.5, "validation_f1": 0.5}


@dataclass(frozen=True)
class Variant:
    """A way of sending updates."""

    name: str
    encoding: Encoding
    feedback: bool = True


VARIANTS = (
    Variant("float32", Encoding.FLOAT32),
    Variant("float16", Encoding.FLOAT16),
    Variant("int8", Encoding.INT8),
    Variant("int8 without feedback", Encoding.INT8, feedback=False),
)


class WireSite(CohortSite):
    """A cohort whose uploads go over the wire.

    Args:
        site: whose clients these are.
        variant: how they send.
    """

    def __init__(self, site: CohortSite, variant: Variant) -> None:
        parts = site.cohort, site.clients, site.everyone, site.engine, site.method, site.layouts
        super().__init__(*parts, site.settings, site.store)
        self.variant = variant
        self.sent: list[int] = []  # bytes of each update
        self.lost: list[float] = []  # of what an update changes, Euclidean
        self._residuals: dict[int, Vector | None] = {}
        self._where = shared_indices(site.method, site.layouts.parameters)

    def received(self, client: int, trained: Trained, shared: SharedState) -> Trained:
        """``trained`` as the gateway decodes it."""
        theta, reference = trained.theta[self._where], shared.theta[self._where]
        update = ClientUpdate(
            task_id("study", 1, 1), bytes(32), trained.samples, theta, trained.local_prototypes, _METRICS
        )
        owed = self._residuals.get(client) if self.variant.feedback else None
        data, self._residuals[client] = encode_update(update, reference, self.variant.encoding, owed)
        sizes = theta.size, trained.local_prototypes.size
        arrived = decode_update(data, sizes, reference)
        assert arrived.theta is not None
        assert arrived.prototypes is not None
        if self.variant.encoding is Encoding.FLOAT32:
            same = np.array_equal(arrived.theta, theta) and np.array_equal(
                arrived.prototypes, trained.local_prototypes
            )
            assert same, "float32 is the simulation, bit by bit"
        self.sent.append(len(data))
        changed = float(np.linalg.norm(theta - reference))
        self.lost.append(float(np.linalg.norm(arrived.theta - theta)) / max(changed, 1e-30))
        whole = trained.theta.copy()
        whole[self._where] = arrived.theta
        return Trained(whole, arrived.prototypes, arrived.samples, trained.occupancy)


def measure(scenario: Scenario, variant: Variant, seed: int) -> dict[str, Any]:
    """All rounds of a scenario with one method, and what is known after the last."""
    (line,) = scenario.methods
    setup = build_setup(scenario, line, seed, workers=os.cpu_count() or 1)
    (base,) = setup.sites
    site, shared, rounds = WireSite(base, variant), setup.initial, scenario.training.rounds
    started = time.perf_counter()
    for round_ in range(1, rounds + 1):
        reply = site.train(RoundSettings(round_, generalisation=False), shared)
        assert reply.upload is not None
        shared = setup.method.aggregate(reply.upload, shared, setup.layouts)
    evaluated = site.evaluate(RoundSettings(rounds), shared)
    theta = shared.theta[shared_indices(setup.method, setup.layouts.parameters)]
    return {
        "scenario": scenario.name,
        "method": line.name,
        "seed": seed,
        "variant": variant.name,
        "rounds": rounds,
        "clients": len(site.clients),
        "theta": theta.size,
        "prototypes": shared.prototypes.size,
        "received": len(encode_state(theta, shared.prototypes)),
        "sent": float(np.mean(site.sent)),
        "lost": float(np.mean(site.lost)),
        "personalisation": float(np.mean(reply.metrics["personalisation"])),
        "personalisation_f1": float(np.mean(reply.metrics["personalisation_f1"])),
        "global": float(np.mean(evaluated.metrics["global"])),
        "global_f1": float(np.mean(evaluated.metrics["global_f1"])),
        "seconds": time.perf_counter() - started,
    }


def planned(chosen: dict[str, tuple[tuple[str, ...], int]]) -> Iterator[tuple[str, str, int, Variant]]:
    """Every run; all variants of a seed come together, so that a study cut short compares like with like."""
    for name, (methods, seeds) in chosen.items():
        for method in methods:
            for seed in range(seeds):
                for variant in VARIANTS:
                    yield name, method, seed, variant


def main() -> None:
    """Measure, store, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS), help="which; all without"
    )
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    parser.add_argument("--seconds", type=float, help="begin no run after so long")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    kept = options.resume or options.report
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if kept and RESULTS.exists() else {"runs": []}
    known = {(r["scenario"], r["method"], r["seed"], r["variant"]) for r in results["runs"]}
    started = time.monotonic()
    for name, method, seed, variant in planned({name: SCENARIOS[name] for name in options.scenarios}):
        if options.report or (name, method, seed, variant.name) in known:
            continue
        if options.seconds and time.monotonic() - started > options.seconds:
            print("more is to be measured: run again with --resume")
            break
        scenario = load_scenario(
            name, [f"methods={method}", "training.keep_models=none", "evaluation.transductive=false"]
        )
        try:
            run = measure(scenario, variant, seed)
        except DataError as error:
            sys.exit(
                f"{error}\nwhat is measured so far is kept: go on with --resume, or choose --scenarios digits"
            )
        print(
            f"{name} {method} seed {seed} {variant.name}: personalisation {run['personalisation']:.4f}, "
            f"global {run['global']:.4f}, {run['sent']:.0f} bytes, {run['seconds']:.0f} s",
            flush=True,
        )
        results["runs"].append(run)
        results |= {"environment": environment()}
        write_text(RESULTS, json.dumps(results, indent=1) + "\n")
    text = encodings_report.page(results)
    write_text(PAGE, text)
    print(text)


if __name__ == "__main__":
    main()
