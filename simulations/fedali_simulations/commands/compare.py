"""The command ``fedali compare``."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedali.errors import SettingsError
from fedali.support.memory import collect_rarely


def compare(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO... | RUN...",
            help="A scenario's name or .toml file, or several, which are run; or folders of complete runs.",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Lines of the scenario, or methods (see `fedali scenarios`).",
            show_default="the scenario's",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds.", show_default="the scenario's, at least 5")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The method that the others are compared with.", show_default="the first"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting; repeat for more.", show_default=False
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds to run.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is run, or for the tables of several runs.",
            show_default="runs/SCENARIO-TIME",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the comparison in this folder.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Runs side by side; changes no result.", show_default="all cores"),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Say what it takes to reach an accuracy, such as personalisation=0.9; repeat for more.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress display, only the tables.")
    ] = False,
) -> None:
    r"""Compare methods on the same clients, splits and budget: means, intervals, ranks and tests.

    A scenario is run for each method and seed. Complete runs are compared as they are.

    \b
    Examples:
      fedali compare digits --methods fedavg,fedprox,fedali --seeds 5
      fedali compare my_study.toml --against fedavg --out runs/mine
      fedali compare runs/a/found.toml runs/b/found.toml
      fedali compare --resume runs/mine
      fedali compare runs/mine runs/others --against fedavg
      fedali compare runs/mine --target personalisation=0.9
    """
    collect_rarely()
    from fedali_server.console import Console
    from fedali_simulations import study
    from fedali_simulations.comparing.asked import asked_for, is_run
    from fedali_simulations.comparing.files import write_comparison
    from fedali_simulations.comparing.over_rounds import read_targets
    from fedali_simulations.comparing.runs import compare_runs
    from fedali_simulations.comparing.show import print_comparison
    from fedali_simulations.environment import log_to_stderr
    from fedali_simulations.report.console import Display

    given, targets = what or [], read_targets(target or [])
    trained = bool(given) and all(map(is_run, given))
    changes = [*(settings or []), *([f"training.rounds={rounds}"] if rounds else [])]
    _check(
        given,
        trained,
        resume,
        out,
        [*changes, *([methods] if methods else []), *([str(seeds)] if seeds else [])],
    )
    log_to_stderr()
    console, messages = Console(), Console(stderr=True, quiet=as_json or quiet)
    if trained:
        folders = [Path(folder) for folder in given]
        comparison = compare_runs(folders, against, targets)
        place = out or (folders[0] if len(folders) == 1 else _untaken())
    else:
        if resume is not None:
            place = study.existing(resume)
            asked = study.scenario_of(place)
        else:
            asked = asked_for(given, methods, seeds, changes, against)
            place = study.prepare(asked, out)
        with Display(asked, place, messages, partial(study.numbers, place), command="compare") as display:
            study.run(place, workers=workers, report=display.report)
        comparison = compare_runs([place], against, targets)
    write_comparison(comparison, place)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict()))
    else:
        print_comparison(comparison, console)
        console.say(f"everything this left: {place} (compare.csv, .parquet, .tex, .md, .json)")


def _check(
    given: list[str], trained: bool, resume: Path | None, out: Path | None, changes: list[str]
) -> None:
    """Raise ``SettingsError`` for words that do not go together."""
    from fedali_simulations.comparing.asked import is_run

    if resume is not None and (given or changes or out is not None):
        raise SettingsError(
            "--resume goes on in its own folder, with its own settings: leave the others away"
        )
    if resume is None and not given:
        raise SettingsError("what? For example: fedali compare digits --methods fedavg,fedali")
    for name in given:
        if is_run(name) and not trained:
            raise SettingsError(f"scenarios or folders of complete runs, not both: {name} is a run")
        if not trained and Path(name).is_dir():
            raise SettingsError(f"{name} is a folder, and holds no run: there is no scenario.toml in it")
    if trained and changes:
        raise SettingsError(
            "complete runs are compared as they are: leave --methods, --seeds, --set and --rounds away"
        )


def _untaken() -> Path:
    """A new folder for the tables of several runs."""
    return Path("runs") / f"compare-{time.strftime('%Y%m%d-%H%M%S')}"
