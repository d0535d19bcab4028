"""Trainings over the devices of a federation, one for each line of a scenario's table and each seed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.answers import BUNDLED
from fedali.bundle.file import read_bundle
from fedali.bundle.keys import load_public
from fedali.errors import CheckpointError, FedaliError, SettingsError
from fedali.schema import read_schema
from fedali.support.files import running_alone, write_text
from fedali.support.names import file_name
from fedali.wire.kit import OperatorKit
from fedali_server.flower.link import Link
from fedali_server.provisioning.certificates import RevocationList
from fedali_server.run.federated import (
    OVER_DEVICES,
    Operator,
    RunProgress,
    RunSettings,
    run_federation,
    settings_of,
    start_run,
)
from fedali_server.run.folder import RunFolder
from fedali_simulations.federate.deployed import (
    DeployedRun,
    Traffic,
    collect_runs,
    traffic,
    why_nobody_trained,
)
from fedali_simulations.jobs import Job
from fedali_simulations.report.pace import duration
from fedali_simulations.sampling_checks import check_for_devices
from fedali_simulations.scenario import DataSettings, MethodSettings, Scenario, TrainingSettings
from fedali_simulations.study import at_home, jobs_of, scenario_of
from fedali_simulations.template import to_toml

if TYPE_CHECKING:
    from fedali_simulations.report.results import Results

SCHEMA = "schema.toml"  # the copy in a run's folder

Options = dict[str, Any]  # of ``RunSettings``


@dataclass(frozen=True)
class Outcome:
    """What runs over devices found: the table, and by line what it cost on the way."""

    results: Results
    traffic: Mapping[str, Traffic]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            **self.results.to_dict(),
            "traffic": {name: asdict(one) for name, one in self.traffic.items()},
        }


def prepare_scenario(scenario: Scenario, folder: Path, options: Options, kit: OperatorKit) -> None:
    """Make the folder of a scenario's runs, with a copy of its schema.

    Raises ``SettingsError`` where it holds something, or the schema or options make no sense.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty: resume it with --resume, or choose another --out")
    if scenario.evaluation.on != "test":
        raise SettingsError(
            "evaluation.on is for simulations: devices are tested on the test data that they hold; leave it away"
        )
    task = scenario.task.build()
    if task.kind != "classes":
        raise SettingsError(f"task {scenario.task.name!r}: {OVER_DEVICES}")
    check_for_devices(scenario)
    for line in scenario.methods:
        answer = line.build().answer
        if answer not in BUNDLED:
            raise SettingsError(
                f"{line.title}: +{answer} is for simulations. Devices answer with the models they trained, or by +gate"
            )
    for job in jobs_of(scenario, folder):
        _settings(job, "0", options)
    if scenario.data.schema is not None:
        write_text(folder / SCHEMA, read_schema(scenario.data.schema).to_toml())
    write_text(folder / "scenario.toml", to_toml(at_home(scenario)))
    facts = {"federation": kit.federation, "stamp": time.strftime("%y%m%d%H%M%S"), "options": options}
    write_text(folder / "federation.json", json.dumps(facts, indent=1))


def prepare_bundle(bundle: Path, folder: Path, options: Options, kit: OperatorKit) -> None:
    """Make the folder of a run that goes on from a bundle.

    Raises ``BundleError`` for one that devices would refuse, ``SettingsError`` where the folder holds something.
    """
    given = {"rounds": 10, "epochs": 1, **options}
    name = f"{_word(bundle.stem)}-{time.strftime('%y%m%d%H%M%S')}"
    start_run(RunFolder(folder), bundle, RunSettings(name=name, **given), operator_of(kit))


def change_waiting(folder: Path, options: Options) -> None:
    """Change how long a run waits, and for whom, in the folder of one that is resumed; what is complete stays as it was.

    Raises ``CheckpointError`` where there is no run, ``SettingsError`` for values that make no sense.
    """
    if not options:
        return
    parts = [folder]
    if not (folder / "run.json").exists():
        stamp, before = _facts(folder)
        facts = json.loads((folder / "federation.json").read_text("utf-8"))
        for job in jobs_of(scenario_of(folder), folder):
            _settings(job, stamp, {**before, **options})
        write_text(
            folder / "federation.json", json.dumps({**facts, "options": {**before, **options}}, indent=1)
        )
        parts = [job.folder for job in jobs_of(scenario_of(folder), folder)]
    for part in map(RunFolder, parts):
        if (part.path / "run.json").exists() and not part.done:
            settings = replace(settings_of(part), **options)
            write_text(part.path / "run.json", json.dumps(asdict(settings), indent=1))


def go_on(
    folder: Path,
    kit: OperatorKit,
    report: Callable[[str, RunProgress], None],
    say: Callable[[str], None] = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Outcome:
    """Do what is left of the runs in a folder that ``prepare_scenario`` or ``prepare_bundle`` made, one after another.

    ``report`` is told the title of the run that goes on, and where it is; ``meanwhile`` is called several times a second. Raises what ``run_federation`` does.
    """
    if not (folder / "run.json").exists():
        _checked(folder)
    with running_alone(folder):
        return _go_on(folder, kit, report, say, meanwhile)


def _go_on(
    folder: Path,
    kit: OperatorKit,
    report: Callable[[str, RunProgress], None],
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> Outcome:
    operator = operator_of(kit)
    if (folder / "run.json").exists():
        run_federation(RunFolder(folder), operator, partial(report, folder.name), meanwhile, say)
        scenario = _as_scenario(RunFolder(folder), operator)
        runs = [DeployedRun(scenario.methods[0].title, scenario.seed, folder)]
    else:
        scenario, runs = (
            scenario_of(folder),
            _run_scenario(folder, kit, operator, report, say, meanwhile),
        )
    for run in runs:
        why = why_nobody_trained(run)
        if why is not None:
            raise FedaliError(f"{run.title}: no device trained in any round, so nothing was learned. {why}")
    outcome = Outcome(collect_runs(scenario, folder, runs), {run.title: traffic(run) for run in runs})
    write_text(folder / "results.json", json.dumps(outcome.to_dict(), indent=1))
    return outcome


def operator_of(kit: OperatorKit) -> Operator:
    """What a run needs of an operator's kit."""
    key = load_public(kit.trusted_key)
    revoked = RevocationList.read(kit.revoked, key)
    return Operator(
        kit.federation, Link.of_operator(kit), key, (revoked.text, revoked.signature), tuple(kit.sites)
    )


def _run_scenario(
    folder: Path,
    kit: OperatorKit,
    operator: Operator,
    report: Callable[[str, RunProgress], None],
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> list[DeployedRun]:
    from fedali_simulations.federate.exporting import (
        export_untrained,  # with torch, which nothing else here needs
    )

    scenario = scenario_of(folder)
    stamp, options = _facts(folder)
    jobs, runs = jobs_of(scenario, folder), []
    described = None
    if scenario.data.schema is not None and not all((job.folder / "run.json").exists() for job in jobs):
        from fedali_simulations.federate.described import describe

        settings = replace(_settings(jobs[0], stamp, options), name=f"statistics-{stamp}")
        schema = read_schema(folder / SCHEMA)
        described = describe(schema, jobs[0], folder / "round-0", settings, kit, operator, say, meanwhile)
    left = [job for job in jobs if not RunFolder(job.folder).done]
    began, finished = time.monotonic(), 0
    for job in jobs:
        stored, title = RunFolder(job.folder), job.line.title
        name = f"{title} seed {job.seed}" if scenario.seeds > 1 else title
        if not (job.folder / "run.json").exists():
            bundle = folder / "untrained" / f"{file_name(title)}-{job.seed}.fedali"
            if not bundle.exists():
                again = any((folder / "untrained").glob(f"{file_name(title)}-*.fedali"))
                say(
                    f"exporting the untrained model of {name}{', whose graphs are there' if again else ''} ..."
                )
                key = kit.signing_key
                export_untrained(scenario, job.line, job.seed, bundle, key=key, described=described)
            start_run(stored, bundle, _settings(job, stamp, options), operator)
        was_done = stored.done
        run_federation(stored, operator, partial(report, name), meanwhile, say)
        if not was_done:
            finished += 1
            more = (time.monotonic() - began) / finished * (len(left) - finished)
            if finished < len(left):
                say(f"{name} is complete; {len(left) - finished} trainings left, about {duration(more)}")
        runs.append(DeployedRun(title, job.seed, job.folder))
    return runs


def _as_scenario(folder: RunFolder, operator: Operator) -> Scenario:
    """What the table of a bundle's run is headed by."""
    manifest = read_bundle(folder.bundle, [operator.trusted_key]).manifest
    settings = settings_of(folder)
    method = MethodSettings(name=manifest.method.name, options=manifest.method.options)
    training = TrainingSettings(rounds=settings.rounds, epochs=settings.epochs, batch_size=manifest.batch)
    data = DataSettings(source="devices")
    return Scenario(name=manifest.name, methods=(method,), seed=settings.seed, data=data, training=training)


def _checked(folder: Path) -> Path:
    if not (folder / "scenario.toml").exists():
        raise CheckpointError(
            f"{folder} holds no run over devices: there is no run.json and no scenario.toml in it"
        )
    return folder


def _settings(job: Job, stamp: str, options: Options) -> RunSettings:
    training = job.scenario.training_for(job.line)
    epochs = training.epochs + job.line.build().extra_epochs
    given = {"rounds": training.rounds, "epochs": epochs, "seed": job.seed, "stop_after": training.patience}
    return RunSettings(name=f"{_word(job.line.title)}-{job.seed}-{stamp}", **{**given, **options})


def _word(title: str) -> str:
    """A title as a run may be called; another for another title."""
    word = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title.lower())
    word = word.strip("-")[:32]
    return word if word == title else f"{word or 'run'}-{hashlib.sha256(title.encode()).hexdigest()[:6]}"


def _facts(folder: Path) -> tuple[str, Options]:
    path = folder / "federation.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
        return str(facts["stamp"]), dict(facts["options"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no run over devices: {path.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
