"""The commands ``fedali simulate`` and ``fedali scenarios``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedali.errors import SettingsError
from fedali.support.memory import collect_rarely


def simulate(
    scenario: Annotated[
        str | None,
        typer.Argument(help="A built-in name (see `fedali scenarios`) or a .toml file.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting; repeat for more.", show_default=False
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds to run.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for everything the run leaves.", show_default="runs/SCENARIO-TIME"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder, bit by bit.", show_default=False)
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto, loop, compiled, onnx, stacked or ray: see docs/engines.md.",
            show_default="the scenario's",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes or threads; changes no result.", show_default="all cores"),
    ] = None,
    sites: Annotated[
        int | None,
        typer.Option(min=1, help="Sites the clients are spread over.", show_default="the scenario's"),
    ] = None,
    superlink: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Run over the sites that have joined this Flower SuperLink, see `fedali site -h`.",
            show_default="in this process",
        ),
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(help="PEM file: who signs for the SuperLink on another machine.", show_default=False),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="tensorboard, mlflow or wandb: curves of every round, in the run's folder; repeat for more.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Run the first method and seed alone, in one worker, and show where time goes."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress display, only the table.")
    ] = False,
) -> None:
    r"""Train a federation on this machine and compare methods in one table.

    \b
    Examples:
      fedali simulate digits
      fedali simulate digits --set methods=fedali,fedavg --set seeds=5
      fedali simulate motionsense --rounds 5 --set training.learning_rate=5e-4
      fedali simulate my_study.toml --out runs/mine
      fedali simulate --resume runs/mine
      fedali simulate digits --sites 2 --superlink 127.0.0.1:9092
      fedali simulate digits --track tensorboard
      fedali simulate digits --json | jq '.table[0]'
    """
    if resume is not None and out is not None:
        raise SettingsError("--resume goes on in its own folder: leave --out away")
    if resume is None and scenario is None:
        raise SettingsError(
            "which scenario? For example: fedali simulate digits. `fedali scenarios` lists them"
        )
    if profile and (resume is not None or (workers or 1) > 1 or track):
        raise SettingsError(
            "--profile measures a run of its own in one worker: leave --resume, --workers and --track away"
        )
    if superlink is not None and (profile or workers is not None):
        raise SettingsError("with --superlink the sites do the work: leave --profile and --workers away")
    if root_certificates is not None and superlink is None:
        raise SettingsError("--root-certificates is about a SuperLink: give --superlink HOST:PORT too")
    collect_rarely()
    from fedali_server.console import Console
    from fedali_server.flower.link import Link
    from fedali_simulations import study
    from fedali_simulations.environment import log_to_stderr
    from fedali_simulations.report.console import Display, print_results
    from fedali_simulations.scenario import load_scenario
    from fedali_simulations.tracking.trackers import check_callbacks

    log_to_stderr()
    check_callbacks(track or ())
    messages = Console(stderr=True, quiet=as_json or quiet)
    changes = [*(settings or []), *([f"training.rounds={rounds}"] if rounds else [])]
    changes += [f"seed={seed}"] if seed is not None else []
    changes += [f"training.engine={engine}"] if engine is not None else []
    changes += [f"sites={sites}"] if sites is not None else []
    link = Link(superlink, root_certificates) if superlink is not None else None
    if resume is not None:
        folder = study.existing(resume)
        study.check_settings(folder, scenario, changes)
    else:
        asked = load_scenario(str(scenario), changes)
        if profile:
            from fedali_simulations import profiling

            profiling.make_profiler()
            asked = profiling.first_job(asked)
        folder = study.prepare(asked, out, link)
    numbers = partial(study.numbers, folder)
    with Display(study.scenario_of(folder), folder, messages, numbers) as display:
        if profile:
            results, spent = profiling.run(folder, display.report)
        else:
            results = study.run(
                folder, workers=workers, link=link, report=display.report, callbacks=track or ()
            )
    if as_json:
        typer.echo(json.dumps(results.to_dict()))
    else:
        print_results(results, Console())
        if profile:
            typer.echo(str(spent))


def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="Print this scenario as a commented TOML file.", show_default=False)
    ] = None,
) -> None:
    r"""List the built-in scenarios and the methods they can compare, or print one as a template.

    \b
    Examples:
      fedali scenarios
      fedali scenarios digits > my_study.toml
    """
    if name is not None:
        from fedali_simulations.scenario import load_scenario
        from fedali_simulations.template import to_toml

        typer.echo(to_toml(load_scenario(name)), nl=False)
        return
    from fedali_server.console import Console
    from fedali_simulations.report.console import print_scenarios

    print_scenarios(Console())
