"""The command ``fedali up``."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer


def up(
    scenario: Annotated[
        str, typer.Argument(help="A built-in name (see `fedali scenarios`) or a .toml file.")
    ] = "digits",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting; repeat for more.", show_default=False
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=2, help="Device processes, one for each client.")] = 6,
    sites: Annotated[int, typer.Option(min=1, help="Sites, each with a gateway.")] = 2,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to run.", show_default="the scenario's")
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="Numbers that devices send: float32, float16 or int8, see docs/encodings.md.")
    ] = "float32",
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Keep certificates, data and logs in this folder, a template for a real deployment; a folder that is "
            "there is taken up again.",
            show_default="a temporary folder",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Simulate the same federation too, and print both tables.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the table.")] = False,
) -> None:
    r"""A whole federation on this machine, over TLS: a Flower server, sites with gateways, and devices that train bundles.

    Nothing to configure. Every process is what a real deployment runs; Ctrl-C ends them all and cleans up.

    \b
    Examples:
      fedali up
      fedali up --rounds 3 --compare
      fedali up motionsense --devices 8 --sites 3 --encoding int8
      fedali up --keep demo          then read demo/federation.toml, demo/kits and demo/logs
    """
    from fedali_server.console import Console
    from fedali_simulations.environment import log_to_stderr, quiet_flower
    from fedali_simulations.federate.up import bring_up, scenario_for, simulate_same
    from fedali_simulations.report.console import print_results, print_traffic
    from fedali_simulations.report.run_display import RunDisplay

    log_to_stderr()
    quiet_flower()
    changes = [*(settings or []), *([f"training.rounds={rounds}"] if rounds else [])]
    resolved = scenario_for(scenario, changes, devices)
    folder = Path(tempfile.mkdtemp(prefix="fedali-up-")) if keep is None else keep
    console = Console(stderr=True, quiet=as_json or quiet)
    try:
        with RunDisplay(folder / "run", console) as display:
            outcome = bring_up(
                resolved,
                folder,
                sites,
                {"encoding": encoding, "quorum": 1.0},  # all of them are here, or about to be
                display.report,
                display.say,
                display.devices,
                devices=devices,
            )
            simulated = (
                simulate_same(resolved, sites, folder / "simulation", display.say) if compare else None
            )
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        found = {"devices": outcome.to_dict(), "simulation": simulated.to_dict() if simulated else None}
        typer.echo(json.dumps(found))
        return
    out = Console()
    print_results(outcome.results, out)
    print_traffic(outcome.traffic, out)
    if simulated is not None:
        out.print("\nthe same federation, simulated:")
        print_results(simulated, out)
    if keep is not None:
        out.say(f"kept in {keep}: federation.toml, kits, data, logs, run")
