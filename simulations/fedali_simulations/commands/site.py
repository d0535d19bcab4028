"""The command ``fedali site`` without ``start``: a part of a simulated federation."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Annotated

import typer

from fedali.errors import SettingsError
from fedali_server.commands.site import engine_of


def hold(
    context: typer.Context,
    superlink: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The Flower SuperLink to join.", show_default=False),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Which part of the clients this site holds.", show_default=False),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="For what clients keep between rounds.", show_default="sites/K-of-N"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Where the data of a scenario with a path of its own are, on this machine; or a function of yours, my_file:load.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="auto, loop, compiled, onnx, stacked or ray.", show_default="the scenario's"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads or processes.", show_default="all cores")
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(help="PEM file: who signs for a SuperLink on another machine.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private key, where the SuperLink knows its nodes by their keys.", show_default=False
        ),
    ] = None,
) -> None:
    r"""A site of a federation: `fedali site start KIT`, with devices behind it; or, without `start`, simulated clients.

    With --superlink and --part it holds a part of a simulated federation, for runs of `fedali simulate --superlink`:
    it joins the SuperLink, trains its clients in every run that comes, and stays until Ctrl-C or SIGTERM. It runs no
    code that comes over the network.

    \b
    Examples:
      fedali site start kits/hospital-a
      flower-superlink --insecure --host 127.0.0.1 --port 9092 --isolation process
      fedali site --superlink 127.0.0.1:9092 --part 1/2
      fedali site --superlink 127.0.0.1:9092 --part 2/2 --engine compiled
      fedali simulate digits --superlink 127.0.0.1:9092 --sites 2
    """
    if context.invoked_subcommand is not None:
        return
    if superlink is None or part is None:
        missing = "--superlink HOST:PORT" if superlink is None else "--part K/N"
        raise SettingsError(
            f"{missing} is missing: it says which clients to hold; a site with devices is fedali site start KIT"
        )
    number, parts = _part(part)
    chosen = engine_of(engine)
    from fedali.data.sources.functions import is_function

    function = data is not None and is_function(str(data))
    if data is not None and not (function or data.exists()):
        raise SettingsError(f"--data {data}: there is no such file or folder")

    from fedali.support.cores import cores
    from fedali_server.flower.link import Link
    from fedali_server.quiet import log_to_stderr, quiet_flower

    link = Link(superlink, root_certificates)
    quiet_flower()
    from fedali_server.flower.node import serve
    from fedali_simulations.machines.site import SitePart

    log_to_stderr()
    place = SitePart(
        number,
        parts,
        folder or Path("sites") / f"{number}-of-{parts}",
        engine=chosen,
        source=None if data is None else str(data if function else data.absolute()),
        workers=workers or cores(),
    )

    def joined() -> None:
        typer.echo(f"part {number}/{parts} has joined {superlink}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves as Ctrl-C does
    try:
        serve(link, place.app(), joined=joined, key=key)
    except KeyboardInterrupt:
        typer.echo(f"part {number}/{parts} has left {superlink}")


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(f"--part {text}: which part of how many, for example 1/2")
    return int(match[1]), int(match[2])
