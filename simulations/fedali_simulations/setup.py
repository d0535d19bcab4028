"""From a scenario's settings to the things a run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedali import data
from fedali.answers import slots_of
from fedali.cohort.site import Cohort, CohortSettings, CohortSite
from fedali.cohort.store import ClientStore
from fedali.engines.choose import build_engine
from fedali.engines.outputs import Outputs
from fedali.errors import SettingsError
from fedali.methods import Layouts, Method, SharedState
from fedali.models import ALPSettings, Model, build_model
from fedali.models.given import build_given, check_tokens
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector, layout_of
from fedali.support.held import held, is_held
from fedali_simulations.data import load_federation, random_stream, unseen_clients
from fedali_simulations.scenario import MethodSettings, Scenario, TrainingSettings

_MODEL = 12  # what a random stream is for


@dataclass(frozen=True)
class Untrained:
    """A model and a method before the first round: what the server starts from."""

    model: Model
    method: Method
    layouts: Layouts
    initial: SharedState


@dataclass(frozen=True)
class Plan(Untrained):
    """What the server and the sites of one method and one seed agree on; it follows from the scenario and its data alone.

    ``seen`` are the clients that train, ``unseen`` those held out.
    """

    federation: data.Federation
    seen: tuple[int, ...]
    unseen: tuple[int, ...]


@dataclass(frozen=True)
class Setup(Plan):
    """A plan with its sites, in this process."""

    store: ClientStore
    sites: tuple[CohortSite, ...]


def build_plan(scenario: Scenario, line: MethodSettings, seed: int) -> Plan:
    """Data, model and method for one line of the table."""
    federation = load_federation(scenario, seed)
    classes, tokens = len(federation.class_names), federation.tokens
    untrained = build_untrained(scenario, line, seed, federation.input_shape, classes, tokens=tokens)
    if tokens:
        check_tokens(untrained.model, [client.x_train for client in federation.clients])
    unseen = unseen_clients(scenario, len(federation.clients), seed)
    seen = tuple(client for client in range(len(federation.clients)) if client not in unseen)
    if scenario.sites > len(seen):
        raise SettingsError(
            f"{scenario.sites} sites for {len(seen)} clients: give each site at least one client"
        )
    return Plan(**vars(untrained), federation=federation, seen=seen, unseen=unseen)


def build_untrained(
    scenario: Scenario,
    line: MethodSettings,
    seed: int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    tokens: bool = False,
) -> Untrained:
    """Model and method for one line of the table, for samples of this shape, or ``tokens``; the same bits whoever has the data."""
    method, name = line.build(), scenario.model.name
    alp = ALPSettings(**scenario.alp_for(line).model_dump()) if method.uses_prototypes else None
    drawn = int(random_stream(seed, _MODEL).integers(2**31))
    if is_held(name):
        model = build_given(held(name), input_shape, classes, alp=alp, seed=drawn)
    else:
        model = build_model(name, input_shape, classes, alp=alp, seed=drawn, **scenario.model.options)
    if tokens:
        model.takes_tokens = True
    slots = (*method.slots, *slots_of(method.answer))
    layouts = Layouts(layout_of(model.facts, slots), model.prototype_layout)
    prototypes = {f"alp.{i}": layer.global_prototypes.numpy() for i, layer in enumerate(model.alp_layers)}
    start = initial_vector(model.facts, slots, model.theta().numpy())
    return Untrained(model, method, layouts, SharedState(start, layouts.prototypes.flatten(prototypes)))


def build_setup(
    scenario: Scenario,
    line: MethodSettings,
    seed: int,
    *,
    workers: int = 1,
    clients: Path | None = None,
    only: int | None = None,
) -> Setup:
    """Model, method, engine and sites for one line of the table and one seed.

    What clients keep goes to the file ``clients``, or to a temporary one. ``only``: just this site of ``scenario.sites``,
    counted from 0; others are elsewhere.
    """
    plan = build_plan(scenario, line, seed)
    alp, training, evaluation = scenario.alp_for(line), scenario.training_for(line), scenario.evaluation
    engine = build_engine(
        training.engine,
        Recipe(
            plan.model,
            plan.method,
            build_optimizer(training),
            plan.federation.input_shape,
            training.epochs + plan.method.extra_epochs,
            training.batch_size,
            alp.decay,
        ),
        workers=workers,
        precision=training.precision,
    )
    cohort = Cohort(plan.federation)
    settings = CohortSettings(
        seed,
        training.participation,
        transductive=evaluation.transductive and alp.matcher == "ot",
        generalisation_clients=evaluation.generalisation_clients,
        keep_trained=training.keep_models != "none",
        calibration=evaluation.calibration,
        unseen_samples=tuple(sorted(set(evaluation.unseen_samples))),
    )
    store = ClientStore(plan.method, plan.layouts, clients)
    parts = np.array_split(np.array(plan.seen), scenario.sites)
    outputs = Outputs(plan.model) if plan.method.answer != "trained" or evaluation.calibration else None
    sites = tuple(
        CohortSite(
            cohort, part.tolist(), plan.seen, engine, plan.method, plan.layouts, settings, store, outputs
        )
        for part in (parts if only is None else parts[only : only + 1])
    )
    return Setup(**vars(plan), store=store, sites=sites)


def build_optimizer(training: TrainingSettings) -> Adam | SGD:
    """The optimizer of local training."""
    if training.optimizer == "sgd":
        return SGD(training.learning_rate, training.momentum)
    return Adam(training.learning_rate)
