"""The command ``fedali data``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def data(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Your own data (.csv, .npz, or a folder with a file per client), the name of a built-in data set, or a scenario (.toml).",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of a scenario, such as data.window=64; repeat for more.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    r"""See what FedAli makes of data, before anybody trains.

    Clients, classes, channels, times, windows, what is left out and why; then the first lines of a scenario that reads them. What is
    guessed is called a guess. Data that cannot be read get a first look, and a guess at the settings that read them.

    \b
    Examples:
      fedali data my_data.csv
      fedali data my_data.csv --set data.window=64 --set data.stride=32
      fedali data my_study.toml           its data, and its clients after the partition
      fedali data my_data.csv --json | jq .look.classes
    """
    from fedali.errors import DataError
    from fedali.support.memory import collect_rarely
    from fedali_server.console import Console
    from fedali_simulations.looking import see
    from fedali_simulations.report.look import print_seen
    from fedali_simulations.scenario import SUFFIX, load_scenario

    collect_rarely()
    own = not path.endswith(SUFFIX)
    scenario = load_scenario({"data": {"source": path}} if own else path, settings or [])
    seen = see(path, scenario, own=own)
    if as_json:
        typer.echo(json.dumps(seen.to_dict()))
    else:
        print_seen(seen, Console())
    if seen.refusal:
        raise DataError(seen.refusal)
    if seen.parts is not None and seen.parts.refusal and seen.beginning is None:  # it has been told
        raise typer.Exit(DataError.exit_code)
