"""Whatever holds somebody's data, as a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedali.data.dataset import PARTS, Dataset
from fedali.data.federation import Federation
from fedali.data.given.hugging_face import from_table, is_table, is_tables, one_table
from fedali.data.given.items import from_items, is_items
from fedali.data.given.partitioned import is_partitioner, owners, spread, with_owners
from fedali.data.given.samples import Given, given, joined, to_dataset
from fedali.errors import DataError, SettingsError
from fedali.targets import Kind

_PAIR = ("x", "y")
_SPLIT = {"train": 0, "validation": 1, "test": 2}
_TAKEN = (
    "arrays (x, y) or (x, y, clients), clients by name with (x, y) or a torch data set each, one torch data set, a datasets.Dataset or "
    "a fedali.data.Dataset"
)


def as_dataset(
    data: Any,
    *,
    partitioner: Any = None,
    inputs: str | None = None,
    label: str | None = None,
    client: str | None = None,
    layout: str | None = None,
    name: str = "own",
    kind: Kind = "classes",
) -> Dataset:
    """The data set that ``data`` is.

    Args:
        data: one of

            - arrays ``(x, y)`` or ``(x, y, clients)``, or by these names in a mapping: samples [n, features], [n, time, channels] or
              [n, channels, height, width], or ids of tokens [n, tokens] as int64; labels [n], whole numbers or names; whose each is [n];
            - clients, a list or by name: ``(x, y)``, a torch data set, or ``{"train": ..., "test": ...}`` of these where it is decided what is
              for tests;
            - a torch or torchvision data set, whose items are pairs;
            - a ``datasets.Dataset`` or ``DatasetDict``;
            - a ``Dataset`` or a ``Federation`` of FedAli's; the latter keeps its parts.
        partitioner: spreads samples over clients: one of ``flwr-datasets``. Without, samples have the clients that ``data`` says, or are one
            client's, and a scenario's partition may spread them.
        inputs: of a ``datasets.Dataset``, the column of samples, where that is not certain.
        label: the column of labels, likewise.
        client: the column that says whose a sample is.
        layout: axes of a sample where they are others: ``hwc``, ``chw``, ``hw``, ``tc`` or ``ct``.
        name: for people.
        kind: what a task learns: ``classes``; ``labels``, any of several [n, T], 0 or 1; or ``numbers`` [n, T]. A ``Dataset`` knows it.

    Raises ``DataError`` or ``SettingsError`` that says what is wrong, and where.

    >>> x, y = np.zeros((4, 3), np.float32), ["rest", "walk", "rest", "walk"]
    >>> as_dataset((x, y, ["ada", "ada", "bob", "bob"])).counts()
    array([[1, 1],
           [1, 1]])
    """
    columns = {"inputs": inputs, "label": label, "client": client}
    of_tables = is_table(data) or is_tables(data)
    for column, value in columns.items():
        if value is not None and not of_tables:
            raise SettingsError(
                f"{column} names a column of a datasets.Dataset, and the data are {type(data).__name__}"
            )
    if isinstance(data, Dataset | Federation):
        found = data if isinstance(data, Dataset) else of_federation(data)
        return found if partitioner is None else _spread_again(found, partitioner)
    notes: tuple[str, ...] = ()
    if is_tables(data):
        data, notes = one_table(data)
    if is_table(data):
        pieces = from_table(data, name, **columns)
        if partitioner is not None:
            _check(partitioner)
            pieces = with_owners(pieces, owners(partitioner, data))
    else:
        pieces = _given(data, name)
        if partitioner is not None:
            _check(partitioner)
            pieces = spread(pieces, partitioner)
    return to_dataset(replace(pieces, notes=(*notes, *pieces.notes)), name, layout, kind)


def of_federation(federation: Federation) -> Dataset:
    """All samples of a federation, with what each is for."""
    if federation.targets.kind == "numbers":
        raise DataError(f"{federation.name} has normalised targets: give the Dataset that it was made of")
    pieces, owner, part = [], [], []
    for place, one in enumerate(federation.clients):
        for number, name in enumerate(("train", "validation", "test")):
            x, y = getattr(one, f"x_{name}"), getattr(one, f"y_{name}")
            pieces.append((x, y))
            owner.append(np.full(len(y), place))
            part.append(np.full(len(y), number))
    x, y = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
    return Dataset(
        name=federation.name,
        x=x,
        y=y,
        client=np.concatenate(owner),
        client_names=tuple(one.name for one in federation.clients),
        class_names=federation.class_names,
        channel_names=federation.channel_names,
        recording=np.arange(len(x)),
        start=np.zeros(len(x), np.int64),
        length=0,
        licence=federation.licence,
        citation=federation.citation,
        notes=(f"{', '.join(PARTS)} samples are as they were given",),
        interval=federation.interval,
        stride=federation.stride,
        part=np.concatenate(part),
        kind=federation.targets.kind,
    )


def _given(data: Any, where: str) -> Given:
    """Samples of one client or of all."""
    if isinstance(data, tuple) and len(data) in (2, 3):
        return given(data[0], data[1], where, client=data[2] if len(data) == 3 else None)
    if isinstance(data, Mapping) and all(name in data for name in _PAIR):
        odd = [str(name) for name in data if name not in (*_PAIR, "client", "clients")]
        if odd:
            raise DataError(f"{where}: {odd[0]!r} is not known; arrays are x, y and clients")
        return given(data["x"], data["y"], where, client=data.get("clients", data.get("client")))
    if isinstance(data, list):
        digits = len(str(len(data)))
        data = {f"client-{number + 1:0{digits}d}": one for number, one in enumerate(data)}
    if isinstance(data, Mapping):
        if not data:
            raise DataError(f"{where} has no clients")
        pieces = [piece for name, one in data.items() for piece in _client(one, str(name))]
        return joined(pieces, where)
    if is_items(data):
        return from_items(data, where)
    raise DataError(f"{where} is {type(data).__name__}; give {_TAKEN}")


def _client(data: Any, name: str) -> list[Given]:
    """One client's samples, in parts where it says so."""
    where = f"client {name!r}"
    parts: list[tuple[Any, int | None]] = [(data, None)]
    if isinstance(data, Mapping) and "train" in data:
        odd = [str(key) for key in data if key not in _SPLIT]
        if odd or "test" not in data:
            raise DataError(
                f"{where} has {', '.join(map(str, data))}; it may have train, validation and test, and has to have train and test"
            )
        parts = [(one, _SPLIT[str(key)]) for key, one in data.items()]
    found = []
    for one, part in parts:
        piece = from_items(one, where) if is_items(one) else None
        if piece is None:
            if isinstance(one, Mapping) and all(key in one for key in _PAIR):
                one = (one["x"], one["y"])
            if not isinstance(one, tuple | list) or len(one) != 2:
                raise DataError(f"{where} is {type(one).__name__}; give (x, y) or a torch data set")
            piece = given(one[0], one[1], where)
        count = len(piece.y)
        found.append(
            replace(
                piece,
                client=np.full(count, name),
                part=None if part is None else np.full(count, part),
            )
        )
    return found


def _check(partitioner: Any) -> None:
    if not is_partitioner(partitioner):
        raise SettingsError(
            f"{type(partitioner).__name__} is no partitioner: one of flwr-datasets has num_partitions and load_partition"
        )


def _spread_again(dataset: Dataset, partitioner: Any) -> Dataset:
    """A data set whose clients a partitioner makes."""
    _check(partitioner)
    labels = np.array(dataset.class_names)[dataset.y]
    found = spread(Given(np.arange(len(labels))[:, None], labels, dataset.name), partitioner)
    rows = found.x[:, 0]
    names, client = np.unique(np.asarray(found.client), return_inverse=True)
    return replace(
        dataset.take(rows),
        client=client.reshape(-1),
        client_names=tuple(names.tolist()),
        notes=(*dataset.notes, *found.notes),
    )
