"""MotionSense on the edge client and in torch: a federation, people it has not seen, and fifty steps of all parameters.

``python -m benchmarks.edge_people FOLDER`` trains the federation and writes bundles and samples to ``FOLDER``;
``benchmarks.edge_person`` trains on them, each contender in a process of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.edge_bundles import CREATED, fresh_source
from benchmarks.edge_workloads import BATCH, SHAPE, SMALL
from fedali.models import ALPSettings, build_model
from fedali_server.export.bundle_export import export_bundle
from fedali_simulations import study
from fedali_simulations.federate.exporting import export
from fedali_simulations.setup import Plan, build_plan

UNSEEN, ROUNDS, STEPS, SEEDS = 4, 8, 50, 5
SETTINGS = (
    "methods=fedali-paper",
    "seeds=1",
    f"training.rounds={ROUNDS}",
    f"evaluation.unseen_clients={UNSEEN}",
    f"evaluation.generalisation_every={ROUNDS}",
)


def write_people(folder: Path) -> dict[str, Any]:
    """Train the federation; write ``people.fedali``, and ``person-K.npz`` with the windows of each one held out."""
    run = folder / "run"
    study.simulate("motionsense", overrides=SETTINGS, out=run)
    export(run, folder / "people.fedali", mode="head", batch=BATCH, created=CREATED)
    scenario = study.scenario_of(run)
    plan = build_plan(scenario, scenario.methods[0], scenario.seed)
    sizes = []
    for number, index in enumerate(plan.unseen):
        person = plan.federation.clients[index]
        np.savez(
            folder / f"person-{number}.npz",
            x=person.x_train,
            y=person.y_train,
            x_test=person.x_test,
            y_test=person.y_test,
        )
        sizes.append([person.name, len(person.y_train), len(person.y_test)])
    _write_fifty(plan, folder)
    return {"people": sizes, "rounds": ROUNDS, "trained": len(plan.seen)}


def _write_fifty(plan: Plan, folder: Path) -> None:
    """``fifty.fedali``, and for each seed ``fifty-K.npz``: a start, windows for fifty steps, and all test windows."""
    source = fresh_source("cnn1d", SMALL)
    export_bundle(folder / "fifty.fedali", source, mode="full", batch=BATCH, created=CREATED)
    pairs = list(zip(plan.federation.clients, plan.federation.normalisation, strict=True))
    x, x_test = (np.concatenate([n(getattr(c, part)) for c, n in pairs]) for part in ("x_train", "x_test"))
    y, y_test = (np.concatenate([getattr(c, part) for c, _ in pairs]) for part in ("y_train", "y_test"))
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(x))[: STEPS * BATCH]
        alp = ALPSettings(num_prototypes=SMALL)
        np.savez(
            folder / f"fifty-{seed}.npz",
            x=x[chosen],
            y=y[chosen],
            x_test=x_test,
            y_test=y_test,
            theta=build_model("cnn1d", SHAPE, len(source.classes), alp=alp, seed=seed).theta().numpy(),
            prototypes=random.standard_normal(source.model.prototype_layout.size).astype(np.float32),
        )


if __name__ == "__main__":
    print(json.dumps(write_people(Path(sys.argv[1]))))
