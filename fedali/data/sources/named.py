"""Data by what a user calls them: the name of a built-in source, a path, or a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedali.data.dataset import Dataset
from fedali.data.sources import motionsense
from fedali.data.sources.digits import load_digits_dataset
from fedali.data.sources.functions import absolute_function, is_function, load_function
from fedali.data.sources.own import load_own
from fedali.data.sources.public.load import PUBLIC, Clients, facts_of, load_public, schema_of
from fedali.data.sources.reading import PLAIN, Reading
from fedali.errors import SettingsError, did_you_mean
from fedali.schema import Schema
from fedali.support.held import held, is_held
from fedali.support.places import user_path

SOURCES = ("digits", "motionsense", *PUBLIC)  # what may be named, besides a path
WINDOW, STRIDE = 128, 64  # raw samples, of windows that are cut


def load_named(
    source: str,
    *,
    window: int = WINDOW,
    stride: int = STRIDE,
    reading: Reading = PLAIN,
    subjects: Sequence[int | str] | None = None,
    devices: Sequence[str] | None = None,
    clients: Clients = "people",
    windows_per_client: int | None = None,
    seed: int = 0,
    what: str = "data.source",
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """The data set ``source``: a name of ``SOURCES``, ``NAME:PATH`` of a public one, the path of own data, a function of the
    user's, called with ``options`` (``fedali.data.sources.functions``), or an object of this process (``fedali.support.held``).

    Raises ``SettingsError`` for a name that is none, calling it ``what``, and for a setting that the source does not have, and
    what the sources raise.
    """
    name, path = split_source(source)
    if name is None and (is_held(source) or is_function(source)):
        _refuse_reading(source, reading)
        _refuse(
            source, subjects=subjects, devices=devices, clients=clients, windows_per_client=windows_per_client
        )
        if (window, stride) != (WINDOW, STRIDE):
            raise SettingsError(f"{source} is not cut by data.window and data.stride: leave them out")
        if not is_held(source):
            return load_function(source, options or {}, reading.targets)
    _refuse(source, options=options or None)
    if is_held(source):
        found: Dataset = held(source)
        return found
    if name is None:
        own = user_path(source)
        if not own.suffix and not own.exists():
            known = did_you_mean(own.name, SOURCES)
            raise SettingsError(f"{what} {own.name!r} is no file or folder; {known}")
        _refuse(
            source, subjects=subjects, devices=devices, clients=clients, windows_per_client=windows_per_client
        )
        return load_own(own, window=window, stride=stride, reading=reading)
    _refuse_reading(name, reading)
    if name in PUBLIC:
        return load_public(
            name,
            path,
            window=window,
            stride=stride,
            gap=reading.gap,
            channels=reading.columns.channels,
            subjects=subjects,
            devices=devices,
            clients=clients,
            windows_per_client=windows_per_client,
            seed=seed,
        )
    _refuse(name, devices=devices, clients=clients)
    if (window, stride) != (WINDOW, STRIDE):
        raise SettingsError(f"{name} is not cut by data.window and data.stride: leave them out")
    if name == "digits":
        _refuse(name, subjects=subjects, windows_per_client=windows_per_client)
        return load_digits_dataset()
    return motionsense.load_motionsense(
        path, subjects=_whole(subjects), windows_per_client=windows_per_client, seed=seed
    )


def split_source(source: str) -> tuple[str | None, Path | None]:
    """The name of a built-in source, or None, and the path that is given with it.

    >>> split_source("pamap2:/data/PAMAP2_Dataset.zip")
    ('pamap2', PosixPath('/data/PAMAP2_Dataset.zip'))
    >>> split_source("digits"), split_source("mine.csv")
    (('digits', None), (None, None))
    """
    name, colon, path = source.partition(":")
    if name not in SOURCES or (colon and name == "digits"):
        return None, None
    return name, user_path(path) if path else None


def absolute_source(source: str) -> str:
    """``source`` with the full path of data that are the user's.

    >>> absolute_source("digits"), absolute_source("hapt:/data/hapt.zip"), absolute_source("/data/mine.csv")
    ('digits', 'hapt:/data/hapt.zip', '/data/mine.csv')
    """
    name, path = split_source(source)
    if is_held(source):
        return source
    if name is None and is_function(source):
        return absolute_function(source)
    if name is None:
        return str(user_path(source).absolute())
    return name if path is None else f"{name}:{user_path(path).absolute()}"


def known_schema(source: str, window: int = WINDOW) -> Schema | None:
    """What samples of ``source`` are, where that is known without its data."""
    if source == "motionsense":
        return motionsense.SCHEMA
    return schema_of(source, window) if source in PUBLIC else None


def people_of(source: str) -> list[int | str]:
    """The people of a public data set, who are its clients; nobody of other data.

    >>> people_of("hhar")[:2], people_of("motionsense")[:2], people_of("mine.csv")
    (['a', 'b'], [1, 2], [])
    """
    name, _ = split_source(source)
    if name == "motionsense":
        return list(range(1, 25))
    people = facts_of(name).people if name in PUBLIC else ()
    return [int(one) if one.isdecimal() else one for one in people]


def _refuse(name: str, **settings: object) -> None:
    """Raise ``SettingsError`` for a setting that is set and would do nothing."""
    for setting, value in settings.items():
        if value not in (None, "people"):
            raise SettingsError(f"data.{setting} does nothing with {name}: leave it out")


def _refuse_reading(name: str, reading: Reading) -> None:
    cut = name in PUBLIC
    for field in fields(Reading):
        if field.name == "targets":  # what a source has, and a task learns, is compared elsewhere
            continue
        value, usual = getattr(reading, field.name), getattr(PLAIN, field.name)
        if field.name == "columns" and cut:
            value, usual = value.client or value.label or value.recording or value.time, None
        if value != usual and not (field.name == "gap" and cut):
            only = ", but for data.columns.channels," if field.name == "columns" and cut else ""
            raise SettingsError(
                f"data.{field.name}{only} is for own data, and does nothing with {name}: leave it out"
            )


def _whole(subjects: Sequence[int | str] | None) -> Sequence[int] | None:
    """MotionSense's people, who are numbers."""
    if subjects is None:
        return None
    odd = next((one for one in subjects if not str(one).isdecimal()), None)
    if odd is not None:
        raise SettingsError(f"no such MotionSense subjects: {odd}; choose from 1..24")
    return [int(one) for one in subjects]
