"""Data sets spread over clients by a partitioner of ``flwr-datasets``, or by one that is used as those are.

What is used is their public interface: ``partitioner.dataset = table``, ``num_partitions``, ``load_partition(number)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedali.data.given.samples import Given
from fedali.data.sources.extras import require
from fedali.errors import DataError, SettingsError

_ROW = "row"
_MANY = 1_000_000


def is_partitioner(value: Any) -> bool:
    """Whether ``value`` is used as a partitioner is."""
    return callable(getattr(value, "load_partition", None)) and hasattr(type(value), "num_partitions")


def assign(partitioner: Any, table: Any) -> None:
    """Give a partitioner its table, unless it has one."""
    has = getattr(partitioner, "is_dataset_assigned", None)
    if has is None or not has():
        partitioner.dataset = table


def owners(partitioner: Any, table: Any) -> Any:
    """Which client [n] has each row of ``table``, a ``datasets.Dataset``: by its name, or else its number from 1 on; and -1 of a row that none has."""
    rows = table.select_columns([]) if not table.column_names else table
    assign(partitioner, rows.add_column(_ROW, np.arange(len(table))))
    count = int(partitioner.num_partitions)
    if not 2 <= count <= _MANY:
        raise SettingsError(
            f"the partitioner makes {count} partitions; there have to be two clients at least"
        )
    names = getattr(partitioner, "partition_id_to_natural_id", None) or {}
    whose = np.full(len(table), "", dtype=object)
    for number in range(count):
        part = partitioner.load_partition(number)
        if _ROW not in part.column_names:
            raise SettingsError(
                "the partitioner has a data set already: give a new one, which gets the data from here"
            )
        whose[np.asarray(part[_ROW])] = str(names.get(number, f"client-{number + 1:0{len(str(count))}d}"))
    return whose


def spread(found: Given, partitioner: Any) -> Given:
    """Samples with the clients that a partitioner gives them by their labels, in a column ``label``."""
    datasets = require("datasets")
    table = datasets.Dataset.from_dict({"label": found.y.tolist()})
    return with_owners(found, owners(partitioner, table))


def with_owners(found: Given, whose: Any) -> Given:
    """The samples that somebody has."""
    held = whose != ""
    if not held.any():
        raise DataError("the partitioner gives no sample to anybody")
    left = int(np.count_nonzero(~held))
    rows = np.flatnonzero(held)
    return Given(
        found.x[rows],
        found.y[rows],
        found.where,
        whose[rows].astype(str),
        None if found.part is None else found.part[rows],
        found.class_names,
        found.pictures,
        (*found.notes, *([f"{left} samples are in no partition and left out"] if left else [])),
    )
