"""The command ``fedali export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from fedali.bundle.file import Bundle
from fedali.bundle.manifest import Mode
from fedali.errors import SettingsError, did_you_mean
from fedali.support.memory import collect_rarely


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, of one of its lines or seeds, or a best.safetensors or checkpoint.safetensors in it."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write.")] = Path("model.fedali"),
    method: Annotated[
        str | None, typer.Option(help="Line of the run's table.", show_default="the only one")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Which seed.", show_default="the first")] = None,
    client: Annotated[
        str | None,
        typer.Option(help="Whose personal model to start from.", show_default="the server's model"),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="full: the device trains everything; head: the head alone, a fraction of the work."
        ),
    ] = "full",
    batch: Annotated[int, typer.Option(min=1, help="Samples of a training step on the device.")] = 32,
    int8: Annotated[
        bool, typer.Option("--int8", help="Inference in int8 too, where it is faster and as good; mode head.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Private key to sign with, see `fedali keys create -h`.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the bundle is called.", show_default="run and line")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    r"""Make a bundle of a run's model: one signed file that a device trains and predicts with, without torch.

    Each graph is run beside torch before anything is written; a bundle that computes something else is refused.

    \b
    Examples:
      fedali keys create site
      fedali export runs/digits-20260101-120000 --method fedali --key site.key
      fedali export runs/mine --method fedali-paper --mode head --int8 --key site.key -o watch.fedali
      fedali export runs/mine/fedali/seed-0 --client subject-3 --key site.key
      fedali-client verify model.fedali --key site.pub
    """
    modes = get_args(Mode)
    if mode not in modes:
        raise SettingsError(f"unknown mode {mode!r}; {did_you_mean(mode, modes)}")
    if out.is_dir():
        raise SettingsError(
            f"{out} is a folder: give the file to write, such as --out {out / 'model.fedali'}"
        )
    collect_rarely()
    from fedali_simulations.federate.export_ahead import exporting_ahead

    def report(line: str) -> None:
        if not as_json:
            typer.echo(line, err=True)

    with exporting_ahead(run, method=method, seed=seed, mode=mode, batch=batch):
        from fedali_simulations.federate import exporting  # torch takes a second, for both processes at once

        bundle = exporting.export(
            run,
            out,
            method=method,
            seed=seed,
            client=client,
            mode=cast(Mode, mode),
            batch=batch,
            int8=int8,
            key=key,
            name=name,
            report=report,
        )
    if as_json:
        typer.echo(json.dumps(facts(bundle, out)))
    else:
        typer.echo("\n".join(describe(bundle, out, key)))
        sys.stdout.flush()


def facts(bundle: Bundle, path: Path) -> dict[str, Any]:
    """What was written, as JSON can hold it."""
    manifest = bundle.manifest
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "digest": bundle.digest,
        "signed_by": bundle.signed_by,
        "name": manifest.name,
        "mode": manifest.mode,
        "round": manifest.round,
        "parts": {name: part.bytes for name, part in manifest.parts.items()},
        "parity": {name: vars(parity) for name, parity in manifest.parity.items()},
        "int8": manifest.int8,
    }


def describe(bundle: Bundle, path: Path, key: Path | None) -> list[str]:
    """What was written, in lines for people."""
    manifest = bundle.manifest
    lines = [
        f"{path}: {manifest.name}, round {manifest.round}, mode {manifest.mode}, {_size(path.stat().st_size)}"
    ]
    width = max(map(len, manifest.parts))
    for name, part in manifest.parts.items():
        parity = manifest.parity.get(name.removesuffix(".onnx"))
        told = ""
        if parity is not None:
            reference = "float" if "int8" in name else "torch"
            told = f"  {parity.error:.1e} from {reference}: {parity.what.partition(',')[0]}"
        lines.append(f"  {name:<{width}}  {_size(part.bytes):>8}{told}")
    lines.append(f"digest {bundle.digest[:16]}")
    if bundle.signed_by:
        lines.append(f"signed by {bundle.signed_by[:8]}: give devices the .pub file beside {key}")
    else:
        lines.append("not signed: devices refuse it unless told otherwise; sign with --key")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
