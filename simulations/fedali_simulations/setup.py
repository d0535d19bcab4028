"""From a scenario's settings to the things a run is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedali import data
from fedali.errors import SettingsError, did_you_mean
from fedali.methods import Layouts, Method, SharedState, build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers import SGD, Adam, Optimizer
from fedali_simulations.cohort import Cohort, CohortSettings, CohortSite
from fedali_simulations.engines import TrainingSettings, build_engine
from fedali_simulations.scenario import MethodSettings, Scenario
from fedali_simulations.store import ClientStore

SOURCES = ("digits", "motionsense")  # what data.source may name, besides a path

_PARTITION, _UNSEEN, _MODEL = 10, 11, 12  # what a random stream is for


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


def load_federation(scenario: Scenario, seed: int) -> data.Federation:
    """Clients with their data, for one seed; the same for every method."""
    dataset = _dataset(scenario, seed)
    partition = _partition(scenario, dataset, _rng(seed, _PARTITION))
    split = scenario.split
    shift = None if scenario.shift.kind is None else (scenario.shift.kind, scenario.shift.severity)
    return data.build_federation(
        dataset,
        partition=partition,
        fractions=(split.train, split.validation, split.test),
        order=split.order,
        normalise=split.normalise,
        shift=shift,
        seed=seed,
        held_out=unseen_clients(scenario, len(partition.assignments), seed),
    )


def unseen_clients(scenario: Scenario, clients: int, seed: int) -> tuple[int, ...]:
    """Clients held out of training, drawn by the seed; ``SettingsError`` when fewer than two would be left."""
    count = scenario.evaluation.unseen_clients
    if clients - count < 2:
        raise SettingsError(
            f"evaluation.unseen_clients is {count} of {clients} clients; at least two clients have to train"
        )
    chosen = _rng(seed, _UNSEEN).choice(clients, count, replace=False)
    return tuple(sorted(int(client) for client in chosen))


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
        seed=int(_rng(seed, _MODEL).integers(2**31)),
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


def _rng(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, purpose]))


def _dataset(scenario: Scenario, seed: int) -> data.Dataset:
    settings = scenario.data
    if settings.source == "digits":
        return data.load_digits_dataset()
    if settings.source == "motionsense":
        return data.load_motionsense(
            subjects=settings.subjects, windows_per_client=settings.windows_per_client, seed=seed
        )
    path = Path(settings.source)
    if not path.suffix and not path.exists():
        raise SettingsError(
            f"data.source {path.name!r} is no file or folder; {did_you_mean(path.name, SOURCES)}"
        )
    return data.load_own(path, window=settings.window, stride=settings.stride)


def _partition(scenario: Scenario, dataset: data.Dataset, rng: np.random.Generator) -> data.Partition:
    settings = scenario.partition
    if settings.kind == "dirichlet":
        return data.dirichlet(dataset.y, settings.clients, settings.alpha, rng, minimum=settings.minimum)
    if settings.kind == "shards":
        return data.shards(dataset.y, settings.clients, settings.shards_per_client, rng)
    return data.natural(dataset)


def _optimizer(scenario: Scenario) -> Optimizer:
    training = scenario.training
    if training.optimizer == "sgd":
        return SGD(training.learning_rate, training.momentum)
    return Adam(training.learning_rate)
