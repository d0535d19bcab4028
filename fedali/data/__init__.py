"""Data sets, partitions over clients, splits without leaks, and the federation that a simulation runs on.

Importing this needs numpy alone; what else a loader needs it imports when it is called.

>>> import numpy as np
>>> from fedali.data import build_federation, dirichlet, load_digits_dataset
>>> digits = load_digits_dataset()
>>> rng = np.random.default_rng(0)
>>> federation = build_federation(
...     digits, partition=dirichlet(digits.y, 10, 0.5, rng, minimum=30), order="random", seed=0
... )
>>> len(federation.clients), federation.input_shape
(10, (1, 8, 8))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.data.dataset import Dataset as Dataset
    from fedali.data.federation import ClientData as ClientData
    from fedali.data.federation import Federation as Federation
    from fedali.data.federation import Normalisation as Normalisation
    from fedali.data.federation import build_federation as build_federation
    from fedali.data.given.anything import as_dataset as as_dataset
    from fedali.data.partition import Partition as Partition
    from fedali.data.partition import dirichlet as dirichlet
    from fedali.data.partition import natural as natural
    from fedali.data.partition import shards as shards
    from fedali.data.shift import DomainShift as DomainShift
    from fedali.data.sources.digits import load_digits_dataset as load_digits_dataset
    from fedali.data.sources.motionsense import load_motionsense as load_motionsense
    from fedali.data.sources.own import load_own as load_own
    from fedali.data.sources.public.load import load_public as load_public
    from fedali.data.sources.reading import Columns as Columns
    from fedali.data.sources.reading import Reading as Reading
    from fedali.data.split import Split as Split

_HOMES = {
    "Dataset": "dataset",
    "ClientData": "federation",
    "Federation": "federation",
    "Normalisation": "federation",
    "build_federation": "federation",
    "as_dataset": "fedali.data.given.anything",
    "Partition": "partition",
    "dirichlet": "partition",
    "natural": "partition",
    "shards": "partition",
    "DomainShift": "shift",
    "load_digits_dataset": "fedali.data.sources.digits",
    "load_motionsense": "fedali.data.sources.motionsense",
    "load_own": "fedali.data.sources.own",
    "load_public": "fedali.data.sources.public.load",
    "Columns": "fedali.data.sources.reading",
    "Reading": "fedali.data.sources.reading",
    "Split": "split",
}

__all__ = [
    "ClientData",
    "Columns",
    "Dataset",
    "DomainShift",
    "Federation",
    "Normalisation",
    "Partition",
    "Reading",
    "Split",
    "as_dataset",
    "build_federation",
    "dirichlet",
    "load_digits_dataset",
    "load_motionsense",
    "load_own",
    "load_public",
    "natural",
    "shards",
]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
