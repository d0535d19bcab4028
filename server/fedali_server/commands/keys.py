"""The commands ``fedali keys create`` and ``fedali keys show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedali.bundle import keys as files

keys = typer.Typer(
    help="Make and show the keys that bundles are signed with.", no_args_is_help=True, rich_markup_mode=None
)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for both files.")] = Path(),
) -> None:
    r"""Make a pair of keys: NAME.key signs bundles and stays here, NAME.pub goes to every device.

    A key is never overwritten. NAME.key is not encrypted: who can read it can sign.

    \b
    Examples:
      fedali keys create site
      fedali keys create site --out ~/keys
    """
    made = files.create(out / name)
    typer.echo(f"{out / name}.key  signs; keep it here, and to yourself")
    typer.echo(f"{out / name}.pub  goes to devices; fingerprint {made.fingerprint}")


@keys.command()
def show(
    file: Annotated[Path, typer.Argument(help="A .pub or .key file.", show_default=False)],
) -> None:
    r"""Print a key's fingerprint and its public line; of a private key nothing else.

    \b
    Examples:
      fedali keys show site.pub
      fedali keys show site.key > site.pub
    """
    if file.suffix == ".key":
        key = files.public_of(files.load_private(file), file.stem)
    else:
        key = files.load_public(file)
    typer.echo(f"fingerprint {key.fingerprint}", err=True)
    typer.echo(key.line)
