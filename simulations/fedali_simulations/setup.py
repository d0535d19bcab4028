"""From a scenario's settings to the things a run is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedali import data
from fedali.answers import slots_of
from fedali.cohort.buffered.schedule import Buffered, Schedule
from fedali.cohort.buffered.site import BufferedSite
from fedali.cohort.sampling.sampler import Sampler, availability_of
from fedali.cohort.site import Cohort, CohortSettings, CohortSite
from fedali.cohort.store import ClientStore, Table
from fedali.engines.choose import build_engine
from fedali.engines.outputs import Outputs
from fedali.errors import SettingsError
from fedali.methods import Layouts, Method, SharedState
from fedali.models import ALPSettings, Model, build_model
from fedali.models.tokens import check_tokens
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector, layout_of
from fedali.support.held import held, is_held
from fedali.targets import Targets
from fedali.tasks import Task
from fedali_simulations.data import load_federation, random_stream, unseen_clients
from fedali_simulations.sampling_settings import SamplingSettings
from fedali_simulations.scenario import MethodSettings, Scenario, TrainingSettings

_MODEL = 12  # what a random stream is for


@dataclass(frozen=True)
class Untrained:
    """A model and a method before the first round: what the server starts from."""

    model: Model
    method: Method
    layouts: Layouts
    initial: SharedState
    task: Task


@dataclass(frozen=True)
class Plan(Untrained):
    """What the server and the sites of one method and one seed agree on; it follows from the scenario and its data alone.

    ``seen`` are the clients that train, ``unseen`` those held out.
    """

    federation: data.Federation
    seen: tuple[int, ...]
    unseen: tuple[int, ...]

    @property
    def targets(self) -> Targets:
        """What is learnt, with the units that the task knows."""
        return replace(self.federation.targets, units=tuple(getattr(self.task, "units", ())))


@dataclass(frozen=True)
class Setup(Plan):
    """A plan with its sites, in this process."""

    store: ClientStore
    sites: tuple[CohortSite, ...]
    sampler: Sampler | None = None

    def checkpoint(self) -> Table:
        """What clients and sites have to know to go on; on the disk when this returns, or in the table."""
        table = self.store.checkpoint()
        if self.sampler is not None:
            table |= self.sampler.checkpoint()
        for site in self.sites:
            table |= site.checkpoint()
        return table

    def restore(self, table: Table) -> None:
        """Take up a ``checkpoint``, or begin anew where it is empty."""
        self.store.restore(table)
        if self.sampler is not None:
            self.sampler.restore(table)
        for site in self.sites:
            site.restore(table)


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
    task = untrained.task
    task = task.fitted(federation.counted(seen) if task.goes_by_counts else federation.targets)
    return Plan(**{**vars(untrained), "task": task}, federation=federation, seen=seen, unseen=unseen)


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
    task = scenario.task.build()
    method = line.build().for_task(task)
    name = scenario.model.name
    model = build_model(
        held(name) if is_held(name) else name,
        input_shape,
        classes,
        alp=ALPSettings(**scenario.alp_for(line).model_dump()) if method.uses_prototypes else None,
        seed=int(random_stream(seed, _MODEL).integers(2**31)),
        adapt=scenario.model.adapt,
        tokens=tokens,
        **scenario.model.options,
    )
    slots = (*method.slots, *slots_of(method.answer))
    layouts = Layouts(layout_of(model.facts, slots), model.prototype_layout)
    prototypes = {f"alp.{i}": layer.global_prototypes.numpy() for i, layer in enumerate(model.alp_layers)}
    start = initial_vector(model.facts, slots, model.theta().numpy())
    return Untrained(model, method, layouts, SharedState(start, layouts.prototypes.flatten(prototypes)), task)


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
            plan.task,
        ),
        workers=workers,
        precision=training.precision,
    )
    cohort = Cohort(plan.federation, plan.task)
    calibration = evaluation.calibration and plan.task.kind == "classes"
    settings = CohortSettings(
        seed,
        training.participation,
        transductive=evaluation.transductive and alp.matcher == "ot",
        generalisation_clients=evaluation.generalisation_clients,
        keep_trained=training.keep_models != "none",
        calibration=calibration,
        unseen_samples=tuple(sorted(set(evaluation.unseen_samples))),
        schedule=training.rates,
    )
    store = ClientStore(plan.method, plan.layouts, clients)
    parts = np.array_split(np.array(plan.seen), scenario.sites)
    outputs = Outputs(plan.model) if plan.method.answer != "trained" or calibration else None
    sampler = build_sampler(scenario.sampling, seed, plan.federation)
    own = plan.method, plan.layouts, settings, store, outputs, sampler
    sites: tuple[CohortSite, ...] = tuple(
        CohortSite(cohort, part.tolist(), plan.seen, engine, *own)
        for part in (parts if only is None else parts[only : only + 1])
    )
    if training.mode == "buffered":
        schedule = build_schedule(scenario, seed, plan, cohort, sampler)
        sites = (BufferedSite(schedule, cohort, plan.seen, plan.seen, engine, *own[:-1]),)
    return Setup(**vars(plan), store=store, sites=sites, sampler=sampler)


def build_sampler(settings: SamplingSettings, seed: int, federation: data.Federation) -> Sampler | None:
    """Who draws clients; None where it is as it is without settings. ``DataError`` for a trace that cannot be read."""
    if settings == SamplingSettings():
        return None
    sampling, cohort = settings.build(), Cohort(federation)
    names = [client.name for client in federation.clients] if settings.trace else range(len(cohort))
    return Sampler(sampling, seed, cohort.sizes(), availability_of(sampling, seed, names))


def build_schedule(
    scenario: Scenario, seed: int, plan: Plan, cohort: Cohort, sampler: Sampler | None
) -> Schedule:
    """When whose training ends, where rounds wait for nobody."""
    settings, clients = scenario.buffered, np.array(plan.seen, np.int64)
    concurrency = settings.concurrency or max(1, round(scenario.training.participation * len(clients)))
    asked = Buffered(settings.size, concurrency, settings.spread, settings.server_rate)
    on = None if sampler is None else sampler.availability
    return Schedule(asked, seed, clients, cohort.sizes(), on, scenario.sampling.dropout)


def build_optimizer(training: TrainingSettings) -> Adam | SGD:
    """The optimizer of local training."""
    both = {"weight_decay": training.weight_decay, "clip_norm": training.clip_norm}
    if training.optimizer == "sgd":
        return SGD(training.learning_rate, training.momentum, **both)
    return Adam(training.learning_rate, **both)
