"""The command ``fedali server start``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

server = typer.Typer(
    help="The server of a federation: where sites and operators connect to.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@server.callback()
def _server() -> None:
    """Keep ``start`` a command of its own."""


@server.command()
def start(
    kit: Annotated[Path, typer.Argument(help="The server's kit, of `fedali provision`.", show_default=False)],
    state: Annotated[
        Path | None, typer.Option(help="For what it remembers.", show_default="KIT/state")
    ] = None,
) -> None:
    r"""Run the server of a federation until Ctrl-C or SIGTERM.

    Sites connect to one port and are known by their keys; operators connect to another with their certificates. What runs
    are under way is kept in the state folder: killed and started again, it goes on.

    \b
    Examples:
      fedali server start kits/server
      fedali server start kits/server --state /var/lib/fedali
    """
    import structlog

    from fedali.wire.kit import ServerKit, read_kit_as
    from fedali_server.quiet import quiet_flower

    found = read_kit_as(kit, ServerKit)
    quiet_flower()
    from fedali_server.server import run_server

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    run_server(found, (state or found.folder / "state").absolute())
