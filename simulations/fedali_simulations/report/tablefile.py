"""Tables of numbers and names as parquet files, written without pandas.

Importing pandas takes as long as a short round, and ``pyarrow.array`` imports it wherever it is installed: columns are
handed over as the buffers that Arrow's format defines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedali.support.files import atomic

Columns = Mapping[str, Sequence[Any]]


def write_table(path: Path, columns: Columns) -> None:
    """Write columns of one length by name, atomically: floats (NaN stays NaN), whole numbers, or text.

    Raises ``FedaliError`` when the disk is full.
    """
    table = pa.table([_column(values) for values in columns.values()], names=list(columns))
    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def read_table(path: Path) -> dict[str, list[Any]]:
    """Columns of a file by name."""
    found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return found


def _column(values: Sequence[Any]) -> Any:
    if len(values) and isinstance(values[0], str):
        data = [value.encode() for value in values]
        offsets = np.cumsum([0, *map(len, data)]).astype(np.int32)
        return pa.StringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(b"".join(data)))
    numbers = np.asarray(values)
    kind, numbers = (
        (pa.int64(), numbers.astype(np.int64))
        if numbers.dtype.kind == "i"
        else (pa.float64(), numbers.astype(np.float64))
    )
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
