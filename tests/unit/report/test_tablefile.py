from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fedali.errors import FedaliError
from fedali_simulations.report.tablefile import write_table


def test_pandas_and_arrow_read_what_was_written(tmp_path):
    columns = {
        "client": ["anna", "bjørn", "", "客"],
        "round": [3, 3, 3, 3],
        "accuracy": [0.5, float("nan"), 1.0, -0.0],
    }
    write_table(tmp_path / "t.parquet", columns)
    found = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(found, pd.DataFrame(columns), check_dtype=False)
    assert [found[name].dtype.kind for name in ("round", "accuracy")] == ["i", "f"]
    pq.read_table(tmp_path / "t.parquet").validate(full=True)


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_table(tmp_path / "t.parquet", {"client": [], "accuracy": np.empty(0)})
    assert list(pd.read_parquet(tmp_path / "t.parquet").columns) == ["client", "accuracy"]


def test_columns_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="length"):
        write_table(tmp_path / "t.parquet", {"a": [1.0], "b": [1.0, 2.0]})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FedaliError, match="file"):
        write_table(tmp_path / "file" / "t.parquet", {"a": [1.0]})


def test_writing_loads_no_pandas(tmp_path):
    program = (
        "import sys, pathlib; from fedali_simulations.report.tablefile import write_table;"
        f"write_table(pathlib.Path({str(tmp_path / 't.parquet')!r}), {{'client': ['a'], 'n': [1], 'x': [0.5]}});"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
