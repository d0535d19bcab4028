"""What a client's round costs: bytes of its messages, and processor time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedali.errors import CheckpointError
from fedali.methods import Method, Trained, shared_indices
from fedali_simulations.jobs import Job
from fedali_simulations.scenario import MethodSettings, Scenario
from fedali_simulations.setup import Untrained, build_untrained

_BYTES = 4  # of a float32


def costs_of(jobs: Sequence[Job], folder: Path, clients: pd.DataFrame) -> pd.DataFrame:
    """A row for each complete job of a run ``folder``: ``method``, ``seed``, ``bytes down``, ``bytes up``, ``compute``.

    Bytes are those of float32 numbers that a client gets from the server in a round, and sends to it; NaN where the folder does not
    say what the data are (FedAli 0.1.0), and of what is no federated method. Compute is processor seconds of training and evaluation for each client and round; NaN where
    they were spent elsewhere: on other machines, or in Ray's processes.
    """
    elsewhere = (folder / "machines.json").exists()
    shape = _shape(folder)
    federated = [job for job in jobs if shape and not job.line.is_baseline]
    messages = {job.line.title: message_bytes(job.scenario, job.line, *shape) for job in federated if shape}
    rows: list[dict[str, Any]] = []
    for job in jobs:
        facts = json.loads((job.folder / "done.json").read_text("utf-8"))
        spent = facts["timing"]
        mine = clients[(clients["method"] == job.line.title) & (clients["seed"] == job.seed)]
        trained = mine[(mine["round"] >= spent["first_round"]) & mine["train_loss"].notna()]
        unknown = elsewhere or job.scenario.training.engine == "ray"
        down, up = messages.get(job.line.title, (np.nan, np.nan))
        rows.append(
            {
                "method": job.line.title,
                "seed": job.seed,
                "bytes down": down,
                "bytes up": up,
                "compute": np.nan if unknown or trained.empty else spent["cpu_seconds"] / len(trained),
            }
        )
    return pd.DataFrame(rows)


def message_bytes(
    scenario: Scenario, line: MethodSettings, input_shape: tuple[int, ...], classes: int
) -> tuple[float, float]:
    """What a client gets in a round and what it sends, in bytes of float32; names, weights and encodings come on top."""
    untrained = build_untrained(scenario, line, scenario.seed, input_shape, classes)
    method, layouts = untrained.method, untrained.layouts
    shared = shared_indices(method, layouts.parameters).size
    return _BYTES * float(shared + layouts.prototypes.size), _BYTES * float(_sent(untrained, shared))


def _sent(untrained: Untrained, shared: int) -> int:
    method, layouts, initial = untrained.method, untrained.layouts, untrained.initial
    if type(method).upload is Method.upload:
        return shared + (layouts.prototypes.size if method.prototypes is not None else 0)
    upload = method.upload(Trained(initial.theta, initial.prototypes, 1), initial, layouts)
    sums = [total.total for total in upload.sums.values() if total.total is not None]
    return sum(array.size for array in (*sums, *(vector for _, vector in upload.sets)))


def _shape(folder: Path) -> tuple[tuple[int, ...], int] | None:
    path = folder / "data.json"
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text("utf-8"))
        return tuple(int(size) for size in facts["shape"]), len(facts["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
