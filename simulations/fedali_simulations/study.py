"""Run a scenario: every line of its table and every seed, into one folder."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from fedali.data.sources.named import absolute_source
from fedali.errors import CheckpointError, MissingExtraError, SettingsError
from fedali.support.files import running_alone, write_text
from fedali.support.names import file_name, file_name_before
from fedali.support.places import place_matplotlib, user_path
from fedali_server.flower.link import Link
from fedali_server.run.folder import RunFolder
from fedali_simulations.data import check_facts, load
from fedali_simulations.environment import cores, environment, quiet_flower
from fedali_simulations.jobs import Job, Report, identity
from fedali_simulations.machines.remote_sites import RemoteSites, find_remote_sites
from fedali_simulations.machines.workers import run_side_by_side
from fedali_simulations.metrics import MetricsFiles
from fedali_simulations.objects.gathering import gather, hold_again
from fedali_simulations.objects.reach import held_here
from fedali_simulations.sampling_checks import check_who_trains
from fedali_simulations.scenario import MethodSettings, Scenario, load_scenario
from fedali_simulations.template import to_toml
from fedali_simulations.tracking.trackers import calling, check_callbacks

if TYPE_CHECKING:
    from fedali.data import Federation
    from fedali_simulations.report.results import Results

log = structlog.get_logger("fedali.data")
_NEEDED = ("torch", "flwr")  # by the runs, each in a process of its own: better missed before they start


def simulate(
    scenario: str | Path | Mapping[str, Any] | Scenario | None = None,
    *,
    data: Any = None,
    model: Any = None,
    methods: Any = None,
    partition: Any = None,
    overrides: Sequence[str] = (),
    rounds: int | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    workers: int | None = None,
    link: Link | None = None,
    report: Report | None = None,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> Results:
    """Run a scenario, or one's own data, model and methods, and return what was found.

    Args:
        scenario: a built-in name (``digits``, ``motionsense``), a TOML file, a mapping, or a ``Scenario``; what follows is laid over it.
            Without, ``data`` are simulated, by a model that fits them.
        data: a name, a path, ``"my_file:load"``; or an object, as ``fedali.as_dataset`` takes it: arrays ``(x, y, clients)``, clients by
            name, a torch data set, a ``datasets.Dataset``, a ``Dataset`` or ``Federation``.
        model: a name, a ``Model`` or a class of it, or what ``fedali.adapt`` makes of a network.
        methods: names, ``Method`` objects, classes of it; one, or a list.
        partition: how samples are spread over clients where they are nobody's: ``"dirichlet"``, ``{"kind": "shards", "clients": 50}``, or a
            partitioner of ``flwr-datasets``.
        overrides: ``"key=value"`` settings over it, as ``--set`` takes them.
        rounds: over ``training.rounds``.
        seed: over ``seed``.
        out: folder for everything the run leaves; ``runs/<scenario>-<time>`` without. A folder that holds a run
            already is refused: see ``resume``.
        workers: processes or threads; the number of cores without. It changes no result.
        link: to a SuperLink whose sites hold the clients, see docs/engines.md; all are in this process without.
        report: called after each round, and once more when a run is complete.
        callbacks: called after each round, for each client, and at the end, see ``fedali_simulations.Callback``; or names of trackers.
        settings: a scenario's by their names: ``seeds=2``, ``split={"test": 0.2, ...}``; those of ``training`` and ``evaluation`` directly
            too: ``epochs=5``, ``learning_rate=1e-3``, ``engine="onnx"``.

    What other processes cannot import by a name, such as arrays or a notebook's classes, is trained by threads of this one.

    Raises ``FedaliError`` with one line that says what to do.

    For example::

        results = simulate("digits", methods=["fedali", "fedavg"], rounds=5)
        results.table[["method", "measure", "accuracy"]]
    """
    extra = {"rounds": rounds, "seed": seed}
    given = {**settings, **{name: value for name, value in extra.items() if value is not None}}
    asked, objects = gather(
        scenario,
        overrides,
        data=data,
        model=model,
        methods=methods,
        partition=partition,
        settings=given,
    )
    check_callbacks(callbacks)
    found = run(prepare(asked, out, link), workers=workers, report=report, callbacks=callbacks)
    return replace(found, objects=tuple(objects))


def resume(
    folder: Path | str,
    *,
    data: Any = None,
    model: Any = None,
    methods: Any = None,
    partition: Any = None,
    workers: int | None = None,
    report: Report | None = None,
    callbacks: Sequence[Any] = (),
) -> Results:
    """Continue the run in ``folder`` where it stopped; the results are those of an uninterrupted run, bit by bit.

    ``data``, ``model``, ``methods``, ``partition``: the objects that it was begun with, where it was with such.

    Raises ``CheckpointError`` when the folder holds no run, or a file of it is broken.
    """
    objects = hold_again(model=model, methods=methods)
    if data is not None:
        objects += hold_again(data, partition=partition, task=scenario_of(existing(folder)).task.model_dump())
    check_callbacks(callbacks)
    found = run(existing(folder), workers=workers, report=report, callbacks=callbacks)
    return replace(found, objects=tuple(objects))


def prepare(scenario: Scenario, out: Path | str | None = None, link: Link | None = None) -> Path:
    """Make the folder of a new run, with its resolved settings; faults in the data are found before that.

    With a ``link`` the clients are on other machines, and the folder says so.
    """
    for module in _NEEDED:
        if find_spec(module) is None:
            raise MissingExtraError(module, "sim")
    scenario = at_home(scenario)
    dataset, federation = load(scenario, scenario.seed)
    check_who_trains(scenario, [client.name for client in federation.clients], remote=link is not None)
    for note in (*dataset.notes, *federation.constant):
        log.info("data", note=note)
    for folder in [Path(out)] if out else _untaken(scenario):
        with running_alone(folder):
            if (folder / "scenario.toml").exists():
                if out is None:
                    continue  # begun in the same second
                raise SettingsError(
                    f"{folder} holds a run already: continue it with --resume {folder}, or choose another --out"
                )
            if link is not None:
                RemoteSites(link).write(folder)
            check_facts(folder, dataset)
            write_text(folder / "environment.json", json.dumps(environment(), indent=1))
            write_text(folder / "scenario.toml", to_toml(scenario))
        return folder
    raise AssertionError("there is always another name")


def _untaken(scenario: Scenario) -> Iterator[Path]:
    """Folders for a run without ``--out``, the likeliest first."""
    stamp = f"{file_name(scenario.name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        folder = Path("runs") / (stamp if number == 1 else f"{stamp}-{number}")
        if not folder.exists():
            yield folder


def at_home(scenario: Scenario) -> Scenario:
    """The scenario with the full path of its own data or schema, so that it can be resumed and redone from anywhere."""
    paths: dict[str, str] = {}
    if scenario.data.source is not None:
        paths["source"] = absolute_source(scenario.data.source)
    if scenario.data.schema is not None:
        paths["schema"] = str(user_path(scenario.data.schema).absolute())
    changes: dict[str, Any] = {"data": scenario.data.model_copy(update=paths)}
    if scenario.sampling.trace is not None:
        trace = {"availability": str(user_path(scenario.sampling.trace).absolute())}
        changes["sampling"] = scenario.sampling.model_copy(update=trace)
    return scenario.model_copy(update=changes)


def existing(folder: Path | str) -> Path:
    """The folder of a run to continue; ``CheckpointError`` when it holds none."""
    if not (Path(folder) / "scenario.toml").exists():
        raise CheckpointError(f"{folder} holds no run: there is no scenario.toml in it")
    return Path(folder)


def check_settings(folder: Path, source: str | None, overrides: Sequence[str]) -> None:
    """``SettingsError`` when the settings asked for are not those of the run in ``folder``."""
    stored = scenario_of(folder)
    asked = at_home(load_scenario(source or str(folder / "scenario.toml"), overrides, stored=source is None))
    before, after = flat(stored.model_dump(mode="json")), flat(asked.model_dump(mode="json"))
    for key in before | after:
        if before.get(key) != after.get(key):
            raise SettingsError(
                f"{folder} was started with {key} = {before.get(key)!r}, not {after.get(key)!r}: "
                f"continue it with --resume {folder} alone, or start anew with --out"
            )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def scenario_of(folder: Path) -> Scenario:
    """What runs in ``folder``."""
    return load_scenario(str(folder / "scenario.toml"), stored=True)


def run(
    folder: Path,
    *,
    workers: int | None = None,
    link: Link | None = None,
    report: Report | None = None,
    callbacks: Sequence[Any] = (),
) -> Results:
    """Do what is left to do in ``folder``, and write tables and pictures.

    ``link`` replaces the SuperLink that the folder names, where the clients are on other machines.
    """
    with running_alone(folder):
        return _run(folder, workers or cores(), link, report or (lambda _: None), callbacks)


def _run(
    folder: Path, workers: int, link: Link | None, report: Report, callbacks: Sequence[Any] = ()
) -> Results:
    scenario, remote = scenario_of(folder), find_remote_sites(folder, link)
    dataset, federation = load(scenario, scenario.seed)  # others may partition differently
    check_facts(folder, dataset)
    jobs, settings = jobs_of(scenario, folder), flat(scenario.model_dump(mode="json", exclude={"methods"}))
    run_jobs(jobs, workers, remote, calling(callbacks, settings, jobs, folder, report))
    from fedali_simulations.report.results import to_markdown

    results = collect(scenario, folder)
    write_text(folder / "results.json", json.dumps(results.to_dict(), indent=1))
    write_text(folder / "table.csv", results.table.to_csv(index=False))
    if results.targets is not None:
        write_text(folder / "targets.csv", results.targets.to_csv(index=False))
    write_text(folder / "table.md", to_markdown(results, environment()))
    place_matplotlib()
    from fedali_simulations.report import pictures

    pictures.draw_all(
        folder,
        clients=results.clients,
        selected=results.selected,
        counts=federation.counts(),
        client_names=[client.name for client in federation.clients],
        class_names=federation.count_names,
        title=scenario.name,
        score=results.task.main,
        what=_counted(federation),
    )
    return results


def _counted(federation: Federation) -> str:
    """What clients' samples are counted by."""
    targets = federation.targets
    return {"classes": "class", "labels": "label", "numbers": targets.names[0]}[targets.kind]


def jobs_of(scenario: Scenario, folder: Path) -> list[Job]:
    """Every run of a scenario, seeds outside, so that a table grows evenly."""
    return [
        Job(scenario, line, seed, line_folder(scenario, folder, line) / f"seed-{seed}")
        for seed in range(scenario.seed, scenario.seed + scenario.seeds)
        for line in scenario.methods
    ]


def line_folder(scenario: Scenario, folder: Path, line: MethodSettings) -> Path:
    """Where one line of the table has its seeds; as FedAli 0.1.0 named it where that is there.

    Raises ``CheckpointError`` where 0.1.0 has put two lines into one folder.
    """
    found = folder / file_name(line.title)
    before = folder / file_name_before(line.title)
    if before == found or found.exists() or not any(before.glob("seed-*")):
        return found
    sharing = [other.title for other in scenario.methods if file_name_before(other.title) == before.name]
    if len(sharing) > 1:
        raise CheckpointError(
            f"{before} holds the runs of {' and '.join(sharing)} together: FedAli 0.1.0 took their names for one. Start anew"
        )
    return before


def collect(scenario: Scenario, folder: Path) -> Results:
    """The results of a complete run from its folder."""
    return collect_jobs(scenario, folder, jobs_of(scenario, folder))


def numbers(folder: Path, label: str, seed: int) -> str:
    """What one method and seed of the run in ``folder`` found, in words, while others may still run."""
    scenario = scenario_of(folder)
    chosen = [job for job in jobs_of(scenario, folder) if (job.line.title, job.seed) == (label, seed)]
    table = collect_jobs(scenario, folder, chosen).table
    main = scenario.task.build().main
    known = [line for line in table.to_dict("records") if not math.isnan(line[main.name])]
    found = ", ".join(f"{line['measure']} {main.number(line[main.name])}" for line in known)
    unit = "%" if main.share else f"({main.title})"
    return f"{found} {unit} at round {table['selected_round'][0]:.0f}"


def collect_jobs(scenario: Scenario, folder: Path, jobs: Sequence[Job]) -> Results:
    """The results of some complete jobs of the run in ``folder``."""
    import pandas as pd

    from fedali_simulations.report.results import Results

    clients, unseen, timing, selected = [], [], [], {}
    for job in jobs:
        run = RunFolder(job.folder, identity(scenario, job.line, job.seed))
        label = job.line.title
        try:
            facts = json.loads((job.folder / "done.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{job.folder} is not complete: {error}. Continue with --resume {folder}"
            ) from error
        clients.append(
            MetricsFiles(run.path).read_metrics(int(facts["rounds"])).assign(method=label, seed=job.seed)
        )
        selected[label, job.seed] = int(facts["best_round"])
        held_out = MetricsFiles(run.path).read_unseen()
        if held_out is not None:
            unseen.append(held_out.assign(method=label, seed=job.seed))
        spent = facts["timing"]
        ran = max(1, facts["rounds"] - spent["first_round"] + 1)
        timing.append(
            {
                "method": label,
                "parameters": facts["parameters"],
                "seconds_per_round": spent["seconds"] / ran,
                "cpu_seconds_per_round": spent["cpu_seconds"] / ran,
            }
        )
    return Results(
        scenario,
        folder,
        pd.concat(clients, ignore_index=True),
        selected,
        pd.concat(unseen, ignore_index=True) if unseen else None,
        pd.DataFrame(timing).groupby("method", sort=False).mean().reset_index(),
    )


def run_jobs(jobs: Sequence[Job], workers: int, remote: RemoteSites | None, report: Report) -> None:
    """Jobs side by side in processes; where there are more workers than jobs, each job gets threads.

    Over sites on other machines one job after another: each has the machines to itself.
    """
    if remote is not None:
        quiet_flower()
        from fedali_simulations.machines.machines import run_remote_job
        from fedali_simulations.run import run_job

        for job in jobs:
            if job.line.is_baseline:  # all data are here, too
                run_job(job, report)
            else:
                run_remote_job(job, remote, report)
        return
    objects = held_here(jobs[0].scenario)
    side_by_side = len(jobs) > 1 and workers > 1 and not objects
    if objects and len(jobs) > 1 and workers > 1:
        log.info(
            "data",
            note=f"{', '.join(objects)}: objects of this process, which other processes cannot reach; {len(jobs)} runs one after another, by threads",
        )
    jobs = [replace(job, workers=max(1, workers // len(jobs)) if side_by_side else workers) for job in jobs]
    if not side_by_side:
        from fedali_simulations.run import run_job

        for job in jobs:
            run_job(job, report)
    else:
        run_side_by_side(jobs, workers, report)
