"""What a study is made of: one run for each line of its table and each seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedali.engines.choose import resolve
from fedali_simulations.names_before import in_hashes
from fedali_simulations.scenario import (
    DataSettings,
    MethodSettings,
    SamplingSettings,
    Scenario,
    TrainingSettings,
)
from fedali_simulations.task_settings import TaskSettings

_READING = (
    "options",
    "schema",
    "columns",
    "gap",
    "unlabelled",
    "missing",
    "header",
    "quote",
    "escape",
    "separator",
    "decimal",
    "encoding",
    "time_format",
    "layout",
    "devices",
    "clients",
)
"""Settings of data that came later: what they are without being set is no part of a run's identity."""

_LATER = (
    "schedule",
    "warmup_rounds",
    "schedule_floor",
    "step_rounds",
    "step_factor",
    "weight_decay",
    "clip_norm",
)
"""Settings of training that came later, likewise."""

_AS_STORED = ("tc", "chw")  # layouts that all samples were taken to have before there was a setting


@dataclass(frozen=True)
class Job:
    """One line of a scenario's table and one seed.

    ``workers`` is the number of threads; where it ``may_diverge``, a training that does so is complete, and its ``done.json`` says
    ``diverged``.
    """

    scenario: Scenario
    line: MethodSettings
    seed: int
    folder: Path
    workers: int = 1
    may_diverge: bool = False


@dataclass(frozen=True)
class Progress:
    """A round of a job is complete; ``round`` 0: the job has begun; ``done``: its results are in its folder."""

    label: str
    seed: int
    round: int
    rounds: int
    personalisation: float | None = None
    done: bool = False


Report = Callable[[Progress], None]


def identity(scenario: Scenario, line: MethodSettings, seed: int) -> dict[str, str]:
    """What a checkpoint must agree on to be resumed: everything that changes numbers, but not how many rounds there are at most."""
    settings = scenario.model_dump(mode="json", exclude={"methods", "seed", "seeds", "name", "description"})
    for name in ("rounds", "keep_models", "patience", "schedule_rounds"):
        settings["training"].pop(name)
    for name in _LATER:
        if settings["training"][name] == TrainingSettings.model_fields[name].default:
            del settings["training"][name]
    rates = scenario.training_for(line).rates
    if rates.kind == "cosine":  # whose numbers change with how many rounds there are
        settings["training"]["schedule_rounds"] = rates.rounds
    for name in _READING:
        value = settings["data"][name]
        if value in (DataSettings.model_fields[name].default, {}) or (
            name == "layout" and value in _AS_STORED
        ):
            del settings["data"][name]
    if scenario.training.mode == "rounds":
        del settings["training"]["mode"], settings["buffered"]
    if scenario.sampling == SamplingSettings():
        del settings["sampling"]
    if not scenario.model.adapt:
        del settings["model"]["adapt"]
    if scenario.evaluation.on == "test":
        del settings["evaluation"]["on"]
    if scenario.task == TaskSettings():
        del settings["task"]
    if (settings["data"].get("columns") or {}).get("target", "") is None:
        del settings["data"]["columns"]["target"]
    del settings["evaluation"]["calibration"]  # changes no other number
    if not scenario.evaluation.unseen_samples:
        del settings["evaluation"]["unseen_samples"]
    settings["training"]["engine"] = resolve(scenario.training.engine)  # engines differ in the last bits
    own = in_hashes(line.model_dump(mode="json"))
    own["training"] = {name: value for name, value in line.training.items() if name != "patience"}
    if not own["training"]:  # came later, too
        del own["training"]
    text = repr((sorted(settings.items()), own))
    return {
        "method": line.title,
        "seed": str(seed),
        "settings": hashlib.sha256(text.encode()).hexdigest()[:16],
    }
