"""The commands ``fedali provision`` and ``fedali revoke``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedali.errors import SettingsError

if TYPE_CHECKING:
    from fedali_server.provisioning.provision import Provisioned


def provision(
    file: Annotated[
        Path | None, typer.Argument(help="federation.toml: who takes part, and where.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the kits.")] = Path("kits"),
    renew: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="New key and certificate for a site, device, server or operator; repeatable."
        ),
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a commented federation.toml.")] = False,
) -> None:
    r"""Make a start-up kit for each member of a federation: identity, addresses, and the command that starts it.

    Run it again after a change of the file: what was made stays, what is new is added. Each kit has a README.txt. Keys
    are not encrypted: carry kits over a channel that you trust, and keep the folder to yourself.

    \b
    Examples:
      fedali provision --example > federation.toml
      fedali provision federation.toml --out kits
      fedali provision federation.toml --renew hospital-a
    """
    from fedali_server.provisioning.federation_file import EXAMPLE, read_federation

    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    if file is None:
        raise SettingsError("which federation? `fedali provision --example > federation.toml` is a beginning")
    from fedali_server.provisioning.provision import provision as make

    _report(make(read_federation(file), out, renew=renew or ()))


def revoke(
    name: Annotated[str, typer.Argument(help="A device or a site.", show_default=False)],
    kits: Annotated[Path, typer.Option(help="Folder of the kits that `fedali provision` made.")] = Path(
        "kits"
    ),
) -> None:
    r"""Take trust back from a device or a site, for instance because its kit was stolen.

    \b
    Examples:
      fedali revoke a-bed-2 --kits kits
      fedali provision federation.toml --renew a-bed-2     a new identity for the same name
    """
    from fedali_server.provisioning.revoke import revoke as take_back

    done = take_back(name, kits)
    if done.kind == "site":
        typer.echo(f"{name} is revoked. Bring kits to where they are used; the server need not be restarted:")
        _kits(kits, [each for each in ("server", "operator") if each in done.changed])
        typer.echo(f"Its devices trust its gateway until its certificate ends: take {name} off the network.")
        return
    typer.echo(f"{name} is revoked, by list {done.number}. `fedali run` tells all sites when it starts.")
    typer.echo(
        f"To refuse it at once, put this file into the kit where {done.site} runs, which need not be restarted:"
    )
    typer.echo(f"  {kits / done.site / 'revoked.json'}")


def _report(done: Provisioned) -> None:
    if done.made:
        typer.echo(
            f"made {_count(done.made)}; bring each to its machine, its README.txt says how to start it:"
        )
        _kits(done.folder, done.made)
    if done.changed:
        typer.echo(
            f"changed {_count(done.changed)}; bring each to its machine again, and restart what runs there:"
        )
        _kits(done.folder, done.changed)
    if not done.made and not done.changed:
        typer.echo(f"{done.folder} is as the file says")
    if done.made:
        typer.echo(
            f"{done.authority} can make identities: it stays here; keep a copy that nobody else can read"
        )
    if done.absent:
        typer.echo(f"not here any more: {_count(done.absent)} of devices", err=True)
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _kits(folder: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        typer.echo(f"  {folder / name}")


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} kit{'' if len(names) == 1 else 's'}"
