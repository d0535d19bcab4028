"""From a run's folder to a bundle: the model that validation chose, as a device takes it up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from fedali.answers import BUNDLED
from fedali.bundle.file import Bundle, read_bundle
from fedali.bundle.keys import load_private
from fedali.bundle.manifest import BundleNormalisation, Component, Mode
from fedali.cohort.tensorfile import read_tensors
from fedali.data.facts import NO_FACTS, DataFacts, real_names
from fedali.data.normalisation import Normalisation, channel_statistics, constant_channels
from fedali.errors import CheckpointError, SettingsError, did_you_mean
from fedali.models import ALPSettings, Model
from fedali.targets import Targets
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.bundle_source import source_of
from fedali_server.export.source import Source, Start
from fedali_server.run.folder import RunFolder, read_best
from fedali_simulations.data import check_facts, load, reading_for_others
from fedali_simulations.federate.gated import gated_start
from fedali_simulations.scenario import MethodSettings, Scenario
from fedali_simulations.setup import Plan, Untrained, build_optimizer, build_plan, build_untrained
from fedali_simulations.study import line_folder, scenario_of

if TYPE_CHECKING:
    from fedali_server.export.int8 import Int8

_STATES = ("best", "checkpoint")  # of the round chosen on validation; of the last round
_FILES = tuple(f"{name}.safetensors" for name in _STATES)


@dataclass(frozen=True)
class Chosen:
    """A line of a study's table and a seed, the study's folder, and the file that its model is in."""

    study: Path
    scenario: Scenario
    line: MethodSettings
    seed: int
    file: Path


@dataclass(frozen=True)
class Described:
    """What a bundle says of data: shape of a sample, names of classes, normalisation of raw samples, and how to read files of the kind."""

    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    normalisation: BundleNormalisation
    data: DataFacts = NO_FACTS
    targets: Targets | None = None


def export(
    run: Path | str,
    out: Path | str,
    *,
    method: str | None = None,
    seed: int | None = None,
    client: str | None = None,
    mode: Mode = "full",
    batch: int = 32,
    int8: bool = False,
    key: Path | str | None = None,
    name: str | None = None,
    created: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Make a bundle of a model of a run.

    Args:
        run: the folder of a run, of one of its lines or seeds, or a ``best.safetensors`` or ``checkpoint.safetensors``; simulated, or over
            devices, where the operator needs no data.
        out: the bundle's file.
        method: the line of the run's table; needed where there are several.
        seed: which; the run's first without.
        client: whose personal model; without, the server's.
        mode: see ``fedali_server.export.bundle_export.export_bundle``.
        batch: samples of a training step on the device.
        int8: make graphs of inference in int8 too, calibrated with the clients' training samples.
        key: file of the private key to sign with.
        name: for people; made of the run, the line and the client without.
        created: see ``export_bundle``.
        report: is told what is being done, in a line.

    Raises ``FedaliError`` with one line that says what to do.
    """
    private = None if key is None else load_private(key)
    federated = federated_run(Path(run), method, seed)
    if federated is not None:
        source = _federated_source(federated, Path(run), name, client, int8)
        return export_bundle(out, source, mode=mode, batch=batch, key=private, created=created, report=report)
    chosen = choose(Path(run), method, seed)
    check_facts(chosen.study, load(chosen.scenario, chosen.scenario.seed)[0], note=False)
    plan = build_plan(chosen.scenario, chosen.line, chosen.seed)
    start, round_ = _start(chosen, plan, client)
    data = _described(chosen.scenario, plan, client)
    source = _source(chosen.scenario, chosen.line, plan, start, round_, name or _name(chosen, client), data)
    return export_bundle(
        out,
        source,
        mode=mode,
        batch=batch,
        key=private,
        created=created,
        int8=_int8(plan, client) if int8 else None,
        report=report,
    )


def export_untrained(
    scenario: Scenario,
    line: MethodSettings,
    seed: int,
    out: Path | str,
    *,
    key: Path | str,
    name: str | None = None,
    mode: Mode = "full",
    report: Callable[[str], None] = lambda _: None,
    described: Described | None = None,
) -> Bundle:
    """Make the bundle that a federation starts from: a scenario's model as its simulation begins with it.

    Arguments are those of ``export``. What is ``described`` takes the place of the scenario's data, which need not be here then.
    """
    private = load_private(key)
    if described is None:
        source = untrained_source(scenario, line, build_plan(scenario, line, seed), name)
    else:
        sizes = described.input_shape, len(described.classes)
        source = _untrained(scenario, line, build_untrained(scenario, line, seed, *sizes), described, name)
    batch = scenario.training.batch_size
    return export_bundle(out, source, mode=mode, batch=batch, key=private, report=report)


def federated_run(run: Path, method: str | None = None, seed: int | None = None) -> RunFolder | None:
    """The folder of a run over sites and devices that ``run`` names, None where it names a simulation's.

    ``run`` may be the folder of ``fedali run``, of one of its lines or seeds, a state in it, or what ``fedali up`` keeps. Raises as
    ``choose`` does.
    """
    folder = run.parent if run.name in _FILES else run
    if not any((folder / name).exists() for name in ("run.json", "scenario.toml")):
        folder = folder / "run" if (folder / "run").is_dir() else folder
    if not (folder / "run.json").exists():
        study = next(
            (f for f in (folder, *folder.absolute().parents[:2]) if (f / "federation.json").exists()), None
        )
        if study is None:
            return None
        folder = choose(folder, method, seed).file.parent
    return RunFolder(folder)


def _federated_source(
    folder: RunFolder, run: Path, name: str | None, client: str | None, int8: bool
) -> Source:
    """The server's model of a run over devices; their own are theirs."""
    if client is not None:
        raise SettingsError("devices keep their personal models to themselves: leave --client away")
    if int8:
        raise SettingsError(
            "int8 is calibrated with clients' samples, and a run over devices has none here: leave --int8 away"
        )
    state = folder.read_checkpoint() if run.name == _FILES[1] else folder.read_best()
    if state is None:
        raise CheckpointError(f"{folder.path} has no model yet: the run did not finish a round")
    bundle = read_bundle(folder.bundle, None, allow_unsigned=True)  # the run's own copy
    return source_of(bundle, state.shared, state.round, name)


def untrained_source(scenario: Scenario, line: MethodSettings, plan: Plan, name: str | None = None) -> Source:
    """What a bundle is of before the first round."""
    return _untrained(scenario, line, plan, _described(scenario, plan, None), name)


def _untrained(
    scenario: Scenario, line: MethodSettings, untrained: Untrained, described: Described, name: str | None
) -> Source:
    shared = untrained.initial
    start = Start(shared.theta, shared.prototypes, shared.theta, shared.prototypes)
    return _source(scenario, line, untrained, start, 0, name or f"{scenario.name} {line.title}", described)


def choose(run: Path, method: str | None = None, seed: int | None = None) -> Chosen:
    """Which model is meant; ``CheckpointError`` where there is none, ``SettingsError`` where it is not clear."""
    if run.suffix == ".safetensors" and run.name not in _FILES:
        raise SettingsError(
            f"{run.name} is none of {' and '.join(_FILES)}: give the run's folder, and --client NAME for a personal model"
        )
    folder = run.parent if run.name in _FILES else run
    study = next(
        (f for f in (folder, *folder.absolute().parents[:2]) if (f / "scenario.toml").exists()), None
    )
    if study is None:
        raise CheckpointError(f"{run} holds no run: there is no scenario.toml in it, nor above")
    scenario = scenario_of(study)
    inside = folder.absolute().relative_to(study.absolute()).parts
    line = _line(scenario, inside[0] if inside else None, method, study)
    number = _seed(scenario, inside[1] if len(inside) > 1 else None, seed, study)
    job = line_folder(scenario, study, line) / f"seed-{number}"
    if run.name in _FILES:
        file = run
    else:
        file = next((job / name for name in _FILES if (job / name).exists()), job / _FILES[0])
    if not file.exists():
        raise CheckpointError(
            f"{job} has no model yet: the run did not finish a round, or kept none (training.keep_models)"
        )
    return Chosen(study, scenario, line, number, file)


def _line(scenario: Scenario, folder: str | None, method: str | None, study: Path) -> MethodSettings:
    lines = {line.title: line for line in scenario.methods}
    if folder is not None:
        found = [line for line in lines.values() if line_folder(scenario, study, line).name == folder]
        if not found:
            raise CheckpointError(f"{study} has no line {folder!r}; {did_you_mean(folder, lines)}")
        if method not in (None, found[0].title):
            raise SettingsError(
                f"that is the folder of {found[0].title!r}, not of {method!r}: leave --method away"
            )
        return found[0]
    if method is None:
        if len(lines) > 1:
            raise SettingsError(f"which model? {study} has several: --method {', '.join(lines)}")
        return scenario.methods[0]
    if method not in lines:
        raise SettingsError(f"{study} has no line {method!r}; {did_you_mean(method, lines)}")
    return lines[method]


def _seed(scenario: Scenario, folder: str | None, seed: int | None, study: Path) -> int:
    seeds = range(scenario.seed, scenario.seed + scenario.seeds)
    if folder is not None:
        number = folder.removeprefix("seed-")
        if not number.isdecimal() or int(number) not in seeds:
            raise CheckpointError(f"{study} has no seed of the folder {folder!r}")
        if seed not in (None, int(number)):
            raise SettingsError(f"that is the folder of seed {number}, not of {seed}: leave --seed away")
        return int(number)
    if seed is not None and seed not in seeds:
        known = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        raise SettingsError(f"{study} has no seed {seed}; known: {known}")
    return scenario.seed if seed is None else seed


def _start(chosen: Chosen, plan: Plan, client: str | None) -> tuple[Start, int]:
    """What a device starts from, and the round it is from."""
    tensors, facts = read_tensors(chosen.file)
    try:
        theta, prototypes = tensors["shared.theta"], tensors["shared.prototypes"]
        round_ = int(facts["round"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{chosen.file} is no state of a run: it lacks {error}") from error
    layouts = plan.layouts
    if theta.shape != (layouts.parameters.size,) or prototypes.shape != (layouts.prototypes.size,):
        raise CheckpointError(
            f"{chosen.file} holds {theta.size} parameters and {prototypes.size} values of prototypes; the scenario's model "
            f"has {layouts.parameters.size} and {layouts.prototypes.size}"
        )
    if client is None:
        return Start(theta, prototypes, theta, prototypes), round_
    _client(plan, client)
    if chosen.file.name != _FILES[0]:
        raise SettingsError(
            f"{chosen.file} has no personal models of its round: run with training.keep_models = all, or leave --client away"
        )
    own, local = read_best(chosen.file, client)
    start = Start(own, local, theta, prototypes)
    if plan.method.answer == "gate" and f"{client}/theta" in tensors:
        return gated_start(plan, start, tensors, _client(plan, client), round_), round_
    return start, round_


def _source(
    scenario: Scenario,
    line: MethodSettings,
    untrained: Untrained,
    start: Start,
    round_: int,
    name: str,
    described: Described,
) -> Source:
    """What a bundle is of."""
    method = untrained.method
    if method.answer not in BUNDLED:
        structlog.get_logger().warning(
            f"{line.title}: the bundle answers with the model that training left; +{method.answer} is for simulations"
        )
        method = dataclasses.replace(method, answer="trained")
    alp, training = scenario.alp_for(line), scenario.training_for(line)
    settings = (
        dataclasses.asdict(ALPSettings(**alp.model_dump())) if untrained.method.uses_prototypes else None
    )
    return Source(
        name=name,
        model=untrained.model,
        component=Component(scenario.model.name, _model_options(scenario, untrained.model), settings),
        method=method,
        optimizer=build_optimizer(training),
        start=start,
        round=round_,
        decay=alp.decay,
        normalisation=described.normalisation,
        input_shape=described.input_shape,
        classes=described.classes,
        data=described.data,
        task=untrained.task.fitted(described.targets or Targets(described.classes)),
        targets=described.targets,
        schedule=training.rates,
    )


def _model_options(scenario: Scenario, model: Model) -> dict[str, Any]:
    """What makes the model again: what of it neither trains nor travels is of its seed."""
    adapt = {"adapt": scenario.model.adapt} if scenario.model.adapt else {}
    return {
        **scenario.model.options,
        **adapt,
        **({"seed": model.seed_of_constants} if model.has_constants else {}),
    }


def _name(chosen: Chosen, client: str | None) -> str:
    return f"{chosen.scenario.name} {chosen.line.title}" + (f", {client}" if client else "")


def _client(plan: Plan, name: str) -> int:
    names = [client.name for client in plan.federation.clients]
    if name not in names:
        raise SettingsError(f"there is no client {name!r}; {did_you_mean(name, names)}")
    return names.index(name)


def _described(scenario: Scenario, plan: Plan, client: str | None) -> Described:
    federation = plan.federation
    normalisation = _normalisation(scenario, plan, client)
    return Described(
        *(federation.input_shape, federation.class_names, normalisation),
        *(_data(scenario, plan, normalisation), plan.targets),
    )


def _data(scenario: Scenario, plan: Plan, normalisation: BundleNormalisation) -> DataFacts:
    """What another file of the kind needs, and which channels never changed in what all clients are normalised by."""
    federation, constant = plan.federation, []
    if normalisation.kind == "global":
        seen = [federation.clients[client].x_train for client in plan.seen]
        constant = constant_channels(Normalisation(normalisation.mean, normalisation.std), seen)
    return DataFacts(
        channels=real_names(federation.channel_names),
        stride=federation.stride,
        interval=federation.interval,
        constant=tuple(constant),
        reading=reading_for_others(scenario.data),
    )


def _normalisation(scenario: Scenario, plan: Plan, client: str | None) -> BundleNormalisation:
    """Of raw samples; where each client has its own, that of all training samples until a device has taken its own."""
    kind, federation = scenario.split.normalise, plan.federation
    found = federation.normalisation[_client(plan, client) if client else 0]
    if kind == "client" and client is None:
        found = channel_statistics([federation.clients[seen].x_train for seen in plan.seen])
    return BundleNormalisation(kind, found.mean, found.std)


def _int8(plan: Plan, client: str | None) -> Int8:
    from fedali_server.export.int8 import Int8

    chosen = plan.seen if client is None else (_client(plan, client),)
    federation = plan.federation
    parts = [(federation.clients[k], federation.normalisation[k]) for k in chosen]
    return Int8(
        np.concatenate([normalise(c.x_train) for c, normalise in parts]),
        (
            np.concatenate([normalise(c.x_validation) for c, normalise in parts]),
            np.concatenate([c.y_validation for c, _ in parts]),
        ),
        (
            np.concatenate([normalise(c.x_test) for c, normalise in parts]),
            np.concatenate([c.y_test for c, _ in parts]),
        ),
    )
