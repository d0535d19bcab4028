"""The command ``fedali run``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedali.errors import SettingsError
from fedali.support.names import file_name

if TYPE_CHECKING:
    from fedali.wire.kit import OperatorKit

_KIT = "FEDALI_KIT"  # names the operator's kit where --kit does not


def run(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A scenario (a built-in name or a .toml file), or a .fedali bundle to go on from.",
            show_default=False,
        ),
    ] = None,
    kit: Annotated[
        Path | None,
        typer.Option(help="The operator's kit, see `fedali provision -h`.", show_default=f"${_KIT}"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything the run leaves.", show_default="runs/NAME-TIME")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the scenario.", show_default=False
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to run.", show_default="the scenario's")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of a device in a round.", show_default="the scenario's, or 1"),
    ] = None,
    sites: Annotated[
        int | None, typer.Option(min=1, help="Sites a round needs.", show_default="all of the kit")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Training, and evaluation, of a round may take so long.", show_default="600"
        ),
    ] = None,
    quorum: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of a site's devices that a round waits for; 0: those that are there.",
            show_default="0",
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds that devices get that are away, or come after the quorum.",
            show_default="30",
        ),
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="Numbers that devices send: float32, float16 or int8, see docs/encodings.md.")
    ] = "float32",
    largest_step: Annotated[
        float,
        typer.Option(
            min=0.0, help="Refuse updates that moved farther, in norms of the round's parameters; 0: none."
        ),
    ] = 1.0,
    largest_weight: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="A device weighs at most so many times what the median device has, and what it said before; 0: what it says.",
        ),
    ] = 10.0,
    largest_samples: Annotated[
        int, typer.Option(min=0, help="Refuse updates of devices that say they have more samples; 0: none.")
    ] = 0,
    patience: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Seconds to wait for sites, for the server, and for devices to begin with.",
            show_default="600",
        ),
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rounds without a better mean validation accuracy after which a run ends; 0: never.",
            show_default="the scenario's training.patience, or 0",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the table.")] = False,
) -> None:
    r"""Train over the sites and devices of a federation.

    A run that was stopped, or killed, goes on with --resume after its last complete round: nothing is applied twice.

    \b
    Examples:
      fedali run my_study.toml --kit kits/operator
      fedali run pilot.fedali --rounds 20 --quorum 0.8 --grace 60
      fedali run digits --set methods=fedali --encoding int8
      fedali run --resume runs/my-study-20260101-120000
      fedali run --resume runs/my-study-20260101-120000 --quorum 0.5     no longer wait for all

    --sites, --seconds, --quorum, --grace and --patience may be changed with --resume; nothing else may.
    """
    if resume is None and what is None:
        raise SettingsError("train what? For example: fedali run my_study.toml --kit kits/operator")
    if resume is not None and (what is not None or out is not None or settings):
        raise SettingsError("--resume goes on with the settings of its folder: give the folder alone")
    found = kit or (Path(os.environ[_KIT]) if os.environ.get(_KIT) else None)
    if found is None:
        raise SettingsError(
            f"which federation? Give --kit, the operator's kit of `fedali provision`, or set {_KIT}"
        )
    from fedali.wire.kit import OperatorKit, read_kit_as
    from fedali_server.console import Console
    from fedali_simulations.environment import log_to_stderr, quiet_flower
    from fedali_simulations.federate import running
    from fedali_simulations.federate.announcing import announcement
    from fedali_simulations.report.console import print_next, print_results, print_traffic
    from fedali_simulations.report.run_display import RunDisplay

    log_to_stderr()
    quiet_flower()
    operators = read_kit_as(found, OperatorKit)
    waiting = _given(sites=sites, seconds=seconds, quorum=quorum, grace_seconds=grace, patience=patience)
    if resume is not None:
        running.change_waiting(resume, waiting)
    options: dict[str, Any] = {
        "sites": max(1, len(operators.sites)),
        "seconds": 600.0,
        "quorum": 0.0,
        "grace_seconds": 30.0,
        "encoding": encoding,
        "largest_step": largest_step,
        "largest_samples": largest_samples,
        "largest_weight": largest_weight,
        "patience": 600.0,
        **waiting,
        **_given(rounds=rounds, epochs=epochs, stop_after=stop_after),
    }
    folder = resume or _prepare(str(what), out, settings or [], options, operators)
    with RunDisplay(folder, Console(stderr=True, quiet=as_json or quiet)) as display:
        for line in announcement(folder, operators):
            display.say(line)
        outcome = running.go_on(folder, operators, display.report, display.say)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict()))
    else:
        console = Console()
        print_results(outcome.results, console)
        print_traffic(outcome.traffic, console)
        print_next(folder, outcome.results, operators.signing_key, console)


def _given(**options: float | None) -> dict[str, Any]:
    """Those that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def _prepare(
    what: str, out: Path | None, settings: list[str], options: dict[str, Any], kit: OperatorKit
) -> Path:
    """Make the folder of a new run."""
    from fedali_simulations.federate import running
    from fedali_simulations.scenario import load_scenario

    stamp = time.strftime("%Y%m%d-%H%M%S")
    if what.endswith(".fedali"):
        if settings:
            raise SettingsError("--set changes a scenario; a bundle has its settings: leave --set away")
        folder = out or Path("runs") / f"{Path(what).stem}-{stamp}"
        running.prepare_bundle(Path(what), folder, options, kit)
        return folder
    changes = [
        *settings,
        *(f"training.{name}={options.pop(name)}" for name in ("rounds", "epochs") if name in options),
    ]
    scenario = load_scenario(what, changes)
    folder = out or Path("runs") / f"{file_name(scenario.name)}-{stamp}"
    running.prepare_scenario(scenario, folder, options, kit)
    return folder
