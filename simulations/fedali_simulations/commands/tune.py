"""The command ``fedali tune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedali.errors import SettingsError
from fedali.support.memory import collect_rarely


def tune(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario's name or .toml file.", show_default=False)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A line of the scenario, or a method.", show_default=False),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Trials; the first has the settings as they are.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trial.")] = 2,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; none that is reported.")] = 1000,
    measure: Annotated[
        str,
        typer.Option(
            help="personalisation, generalisation, both (their mean), or global: accuracy on validation data."
        ),
    ] = "both",
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW:HIGH",
            help="Search a setting from LOW to HIGH, as options.mu=0.01:1.0; repeat for more.",
            show_default="a tenth to ten times the learning rate and each of the method's own decimals",
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
        typer.Option(help="Folder for the search.", show_default="runs/tune-SCENARIO-METHOD-TIME"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the search in this folder.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Runs side by side; changes no result.", show_default="all cores"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress display, only the table.")
    ] = False,
) -> None:
    r"""Find a method's settings on validation data; test data are not read.

    What is found is a scenario file that simulate and compare take.

    \b
    Examples:
      fedali tune digits --method fedprox --budget 20
      fedali tune my_study.toml --method fedali --search alp.scale=1.0:16.0
      fedali tune --resume runs/tune-digits-fedprox-20260101-120000
      fedali compare runs/a/found.toml runs/b/found.toml --seeds 5
    """
    if resume is not None and (
        scenario is not None or method is not None or settings or search or rounds or out
    ):
        raise SettingsError(
            "--resume goes on in its own folder, with its own settings: leave the others away"
        )
    if resume is None and (scenario is None or method is None):
        raise SettingsError("what? For example: fedali tune digits --method fedprox")
    collect_rarely()
    from fedali_server.console import Console
    from fedali_simulations.comparing.asked import one_line
    from fedali_simulations.environment import cores, log_to_stderr
    from fedali_simulations.report.console import Display
    from fedali_simulations.scenario import load_scenario
    from fedali_simulations.tuning import tuning
    from fedali_simulations.tuning.search import Search, title_of
    from fedali_simulations.tuning.show import numbers, print_tuned
    from fedali_simulations.tuning.space import space_of

    log_to_stderr()
    messages = Console(stderr=True, quiet=as_json or quiet)
    if resume is not None:
        folder = resume
    else:
        changes = [*(settings or []), *([f"training.rounds={rounds}"] if rounds else [])]
        asked = one_line(load_scenario(str(scenario), changes), str(method))
        space = space_of(asked, asked.methods[0], search or [])
        wanted = Search(budget, tuple(range(first_seed, first_seed + seeds)), measure, space)
        folder = tuning.begin(asked, wanted, out)
    asked, wanted = tuning.read(folder)
    shown = tuning.announced(asked, wanted, [title_of(number) for number in range(wanted.budget)])
    with Display(shown, folder, messages, numbers(folder, wanted), command="tune") as display:
        tuned = tuning.go_on(folder, workers=workers or cores(), report=display.report)
    if as_json:
        typer.echo(json.dumps(tuned.to_dict()))
    else:
        print_tuned(tuned, Console())
