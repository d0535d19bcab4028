"""The command ``fedali schema``."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    data: Annotated[
        str,
        typer.Argument(
            help="Your own data (.npz, .csv or a folder with a file per client), or a built-in name: digits, motionsense, uci-har, pamap2 and others.",
            show_default=False,
        ),
    ],
    window: Annotated[
        int, typer.Option(min=1, help="Rows in a window; of CSV data alone, as data.window.")
    ] = 128,
    stride: Annotated[
        int,
        typer.Option(min=1, help="Rows between the starts of windows; of CSV data alone, as data.stride."),
    ] = 64,
    rate: Annotated[
        float | None, typer.Option(help="Raw samples a second.", show_default="not known")
    ] = None,
) -> None:
    r"""Print what samples are, without any: a federation starts from that where its data must not be.

    It has the shape of a sample and the names of classes and channels. Look through it before you give it away, and fill in units.

    \b
    Examples:
      fedali schema my_data.csv > schema.toml
      fedali schema motionsense
      fedali run study.toml --kit kits/operator          with [data] schema = "schema.toml" in study.toml
    """
    from fedali.data.sources.named import known_schema, load_named
    from fedali.schema import Schema

    found = known_schema(data, window)
    if found is None:
        dataset = load_named(data, window=window, stride=stride, what="DATA")
        for note in dataset.notes:
            typer.echo(f"note: {note}", err=True)
        found = Schema.of(dataset, rate=rate)
    typer.echo(found.to_toml(), nl=False)
