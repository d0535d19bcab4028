"""Clients' trained models, from a run's folder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from fedali.cohort.tensorfile import read_tensors
from fedali.errors import SettingsError, did_you_mean
from fedali.models import Model
from fedali.slots import slot_slice
from fedali.support.names import file_name
from fedali_simulations.setup import build_plan
from fedali_simulations.study import line_folder

if TYPE_CHECKING:
    from fedali_simulations.report.results import Results


def trained_models(results: Results, method: str, seed: int) -> dict[str, Model]:
    """See ``Results.models``."""
    scenario = results.scenario
    lines = {line.title: line for line in scenario.methods}
    if method not in lines:
        raise SettingsError(f"no method {method!r} in these results; {did_you_mean(method, lines)}")
    folder = line_folder(scenario, results.folder, lines[method]) / f"seed-{seed}" / "personal"
    if not folder.exists():
        raise SettingsError(
            f"there are no models in {folder}: training.keep_models is {scenario.training.keep_models!r}, the seeds are "
            f"{scenario.seed} to {scenario.seed + scenario.seeds - 1}"
        )
    plan, found = build_plan(scenario, lines[method], seed), {}
    for client in plan.seen:
        name = plan.federation.clients[client].name
        tensors, _ = read_tensors(folder / f"{file_name(name)}.safetensors")
        theta = plan.layouts.parameters.flatten(tensors)
        own = plan.model.parameter_layout.unflatten(
            theta[slot_slice(plan.layouts.parameters, plan.method.answer_slot)]
        )
        model = copy.deepcopy(plan.model).eval()
        with torch.no_grad():
            for parameter, value in model.named_parameters():
                value.copy_(torch.from_numpy(own[parameter].copy()))
        found[name] = model
    return found
