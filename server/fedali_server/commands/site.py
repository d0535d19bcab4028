"""The command ``fedali site start``; without ``start``, ``fedali site`` is what others bring for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from fedali.engines.choose import EngineName
from fedali.errors import SettingsError, did_you_mean

site = typer.Typer(subcommand_metavar="[start KIT]", rich_markup_mode=None)


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
            help="Train on data that are here, DIR/DEVICE/train.npz or DIR/DEVICE.csv, or that a function gives, my_file:load, "
            "instead of on devices.",
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
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --data: rows between the starts of windows of CSV, as --set data.stride=N.",
            show_default="the bundle's",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="data.NAME=VALUE",
            help="With --data: how its files are read, where they are others than the bundle knows; the names are a scenario's.",
            show_default=False,
        ),
    ] = None,
) -> None:
    r"""Run a site of a federation until Ctrl-C or SIGTERM: its gateway, for devices, and its end of the server's line.

    Killed and started again, it goes on: what devices were told to be counted is counted.

    With --data there are no devices and no gateway: this process trains in their place, each on the files in its folder,
    DIR/DEVICE/train.npz (x and y), validation.npz and test.npz (both optional), or .csv; or on one file, DIR/DEVICE.npz or .csv, which it
    splits; or on what a function of yours returns, my_file:load, clients by the names of devices. That takes fedali[site] alone.

    \b
    Examples:
      fedali site start kits/hospital-a
      fedali site start kits/hospital-a --state /var/lib/fedali
      fedali site start kits/hospital-b --data /srv/wards --engine onnx --workers 4
      fedali site start kits/hospital-b --data /srv/wards --set data.separator=";" --set data.columns.label=activity
    """
    for option, value in (
        ("--engine", engine),
        ("--workers", workers),
        ("--stride", stride),
        ("--set", settings or None),
    ):
        if data is None and value is not None:
            raise SettingsError(f"{option} goes with --data: devices train by themselves")
    chosen = engine_of(engine)

    from fedali.wire.kit import SiteKit, read_kit_as
    from fedali_server.quiet import log_to_stderr, quiet_flower

    found = read_kit_as(kit, SiteKit)
    quiet_flower()
    log_to_stderr()
    folder = (state or found.folder / "state").absolute()
    if data is None:
        from fedali_server.site.site_start import run_site

        run_site(found, folder)
        return
    from fedali.data.sources.functions import is_function
    from fedali.data.sources.settings import parse_settings
    from fedali.support.cores import cores
    from fedali_server.site.data_site_start import run_data_site

    asked = [] if stride is None else [f"data.stride={stride}"]
    run_data_site(
        found,
        str(data) if is_function(str(data)) else data.absolute(),
        folder,
        engine=chosen or "auto",
        workers=workers or cores(),
        settings=parse_settings([*asked, *(settings or [])]),
    )


def engine_of(name: str | None) -> EngineName | None:
    """The engine of a name; ``SettingsError`` for one that is none."""
    if name is not None and name not in get_args(EngineName):
        raise SettingsError(f"unknown engine {name!r}; {did_you_mean(name, get_args(EngineName))}")
    return cast(EngineName | None, name)
