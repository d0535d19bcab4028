"""From a scenario's settings to the things a run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedali import data
from fedali.errors import SettingsError
from fedali.methods import Layouts, Method, SharedState, build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers import SGD, Adam, Optimizer
from fedali_simulations.cohort import Cohort, CohortSettings, CohortSite
from fedali_simulations.engines.base import TrainingSettings
from fedali_simulations.engines.choose import build_engine
from fedali_simulations.federation import load_federation, random_stream, unseen_clients
from fedali_simulations.scenario import MethodSettings, Scenario
from fedali_simulations.store import ClientStore

_MODEL = 12  # what a random stream is for


@dataclass(frozen=True)
class Setup:
    """Everything one method and one seed run with."""

    federation: data.Federation
    model: Model
    method: Method
    layouts: Layouts
    initial: SharedState
    store: ClientStore
    sites: tuple[CohortSite, ...]
    unseen: tuple[int, ...]


def build_setup(
    scenario: Scenario, line: MethodSettings, seed: int, *, workers: int = 1, clients: Path | None = None
) -> Setup:
    """Model, method, engine and sites for one line of the table and one seed.

    What clients keep goes to the file ``clients``, or to a temporary one.
    """
    federation = load_federation(scenario, seed)
    method = build_method(line.name, line.options)
    alp = scenario.alp_for(line)
    model = build_model(
        scenario.model.name,
        federation.input_shape,
        len(federation.class_names),
        alp=ALPSettings(**alp.model_dump()) if method.uses_prototypes else None,
        seed=int(random_stream(seed, _MODEL).integers(2**31)),
        **scenario.model.options,
    )
    layouts = Layouts(model.parameter_layout, model.prototype_layout)
    training = scenario.training
    engine = build_engine(
        training.engine,
        model,
        method,
        _optimizer(scenario),
        TrainingSettings(training.epochs, training.batch_size),
        input_shape=federation.input_shape,
        decay=alp.decay,
        workers=workers,
        precision=training.precision,
    )
    unseen = unseen_clients(scenario, len(federation.clients), seed)
    seen = [client for client in range(len(federation.clients)) if client not in unseen]
    if scenario.sites > len(seen):
        raise SettingsError(
            f"{scenario.sites} sites for {len(seen)} clients: give each site at least one client"
        )
    cohort = Cohort(federation)
    evaluation = scenario.evaluation
    settings = CohortSettings(
        seed,
        training.participation,
        transductive=evaluation.transductive and alp.matcher == "ot",
        generalisation_clients=evaluation.generalisation_clients,
        keep_trained=training.keep_models != "none",
    )
    store = ClientStore(method, layouts, clients)
    sites = tuple(
        CohortSite(cohort, part.tolist(), seen, engine, method, layouts, settings, store)
        for part in np.array_split(np.array(seen), scenario.sites)
    )
    prototypes = {f"alp.{i}": layer.global_prototypes.numpy() for i, layer in enumerate(model.alp_layers)}
    initial = SharedState(model.theta().numpy(), layouts.prototypes.flatten(prototypes))
    return Setup(federation, model, method, layouts, initial, store, sites, unseen)


def _optimizer(scenario: Scenario) -> Optimizer:
    training = scenario.training
    if training.optimizer == "sgd":
        return SGD(training.learning_rate, training.momentum)
    return Adam(training.learning_rate)
