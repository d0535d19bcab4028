"""The commands ``fedali site`` and ``fedali site start``."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from fedali.engines.choose import EngineName
from fedali.errors import SettingsError, did_you_mean

site = typer.Typer(invoke_without_command=True, subcommand_metavar="[start KIT]", rich_markup_mode=None)


@site.command()
def start(
    kit: Annotated[Path, typer.Argument(help="The site's kit, of `fedali provision`.", show_default=False)],
    state: Annotated[
        Path | None, typer.Option(help="For what it remembers.", show_default="KIT/state")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Train on data that are here, DIR/DEVICE/train.npz, instead of on devices.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="With --data: auto, loop, compiled, onnx, stacked or ray.", show_default="auto"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --data: threads or processes.", show_default="all cores")
    ] = None,
) -> None:
    r"""Run a site of a federation until Ctrl-C or SIGTERM: its gateway, for devices, and its end of the server's line.

    Killed and started again, it goes on: what devices were told to be counted is counted.

    With --data there are no devices and no gateway: this process trains in their place, each on the files in its folder,
    DIR/DEVICE/train.npz (x and y), validation.npz and test.npz (both optional).

    \b
    Examples:
      fedali site start kits/hospital-a
      fedali site start kits/hospital-a --state /var/lib/fedali
      fedali site start kits/hospital-b --data /srv/wards --engine onnx --workers 4
    """
    if data is None and (engine is not None or workers is not None):
        raise SettingsError(
            f"{'--engine' if engine is not None else '--workers'} goes with --data: devices train by themselves"
        )
    chosen = _engine(engine)

    from fedali.wire.kit import SiteKit, read_kit_as
    from fedali_simulations.environment import log_to_stderr, quiet_flower

    found = read_kit_as(kit, SiteKit)
    quiet_flower()
    log_to_stderr()
    folder = (state or found.folder / "state").absolute()
    if data is None:
        from fedali_server.site.site_start import run_site

        run_site(found, folder)
        return
    from fedali_server.site.data_site_start import run_data_site
    from fedali_simulations.environment import cores

    run_data_site(found, data.absolute(), folder, engine=chosen or "auto", workers=workers or cores())


@site.callback()
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
            help="Where the data of a scenario with a path of its own are, on this machine.",
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
    chosen = _engine(engine)
    if data is not None and not data.exists():
        raise SettingsError(f"--data {data}: there is no such file or folder")

    from fedali_server.flower.link import Link
    from fedali_server.quiet import quiet_flower
    from fedali_simulations.environment import cores, log_to_stderr

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
        source=None if data is None else str(data.absolute()),
        workers=workers or cores(),
    )

    def joined() -> None:
        typer.echo(f"part {number}/{parts} has joined {superlink}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves as Ctrl-C does
    try:
        serve(link, place.app(), joined=joined, key=key)
    except KeyboardInterrupt:
        typer.echo(f"part {number}/{parts} has left {superlink}")


def _engine(name: str | None) -> EngineName | None:
    if name is not None and name not in get_args(EngineName):
        raise SettingsError(f"unknown engine {name!r}; {did_you_mean(name, get_args(EngineName))}")
    return cast(EngineName | None, name)


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(f"--part {text}: which part of how many, for example 1/2")
    return int(match[1]), int(match[2])
