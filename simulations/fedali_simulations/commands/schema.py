"""The command ``fedali schema``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fedali.data.look.times import UNITS
from fedali.support.terminal import printable

if TYPE_CHECKING:
    from fedali.data.dataset import Dataset
    from fedali.data.look.times import Times


def schema(
    data: Annotated[
        str,
        typer.Argument(
            help="Your own data (.csv, .npz or a folder with a file per client), the name of a built-in data set, or a scenario (.toml) that has them.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of a scenario's data, such as data.columns.client=user; repeat for more.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="The same as --set data.window.", show_default="128")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="The same as --set data.stride.", show_default="64")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Raw samples a second.", show_default="by the times, where they are dates"),
    ] = None,
) -> None:
    r"""Print what samples are, without any: a federation starts from that where its data must not be.

    It has the shape of a sample and the names of classes and channels. Look through it before you give it away, and fill in units.

    \b
    Examples:
      fedali schema my_data.csv > schema.toml
      fedali schema my_data.csv --set data.window=64 --set data.columns.client=user
      fedali schema my_study.toml > schema.toml
      fedali run study.toml --kit kits/operator          with [data] schema = "schema.toml" in study.toml
    """
    from fedali.data.look.times import times_of
    from fedali.data.sources.named import WINDOW, known_schema
    from fedali.schema import Schema

    known = None if settings else known_schema(data, window or WINDOW)
    if known is not None:  # without its data
        typer.echo(known.to_toml(), nl=False)
        return
    dataset = _read(data, settings or [], window, stride)
    times = times_of([file.clock for file in dataset.files if file.clock is not None])
    notes = list(dataset.notes)
    if rate is None and times is not None:
        notes.append(rate_in_words(times))
    for note in notes:
        typer.echo(printable(f"note: {note}"), err=True)
    typer.echo(Schema.of(dataset, rate=rate).to_toml(), nl=False)


def _read(data: str, settings: Sequence[str], window: int | None, stride: int | None) -> Dataset:
    """The data of a path or a scenario; a site with data alone does not have what reads a scenario's settings."""
    from fedali.data.sources.named import STRIDE, WINDOW, load_named

    if not settings and not data.endswith(".toml"):
        return load_named(data, window=window or WINDOW, stride=stride or STRIDE, what="DATA")
    from fedali_simulations.data import load_dataset
    from fedali_simulations.scenario import SUFFIX, load_scenario

    cuts = {"data.window": window, "data.stride": stride}
    changes = [*settings, *(f"{key}={value}" for key, value in cuts.items() if value is not None)]
    scenario = load_scenario(data if data.endswith(SUFFIX) else {"data": {"source": data}}, changes)
    return load_dataset(scenario, scenario.seed)


def rate_in_words(times: Times) -> str:
    """What the schema says of the rate, and by what."""
    columns = " and ".join(map(repr, times.columns))
    if times.certain_rate is not None:
        return f"rate is {times.certain_rate:g} rows a second, by the dates in {columns}"
    if times.rate is None:
        return f"rate is left open, the unit of {columns} is not known ({times.why}): --rate says it"
    if not times.steady:
        return f"rate is left open, recordings have {times.slowest:.3g} to {times.fastest:.3g} rows a second: --rate says one"
    return (
        f"rate is left open, since times are numbers; guess: they count {UNITS[times.unit]}, {times.why}, which would be "
        f"--rate {times.rate:.4g}"
    )
