"""Archives that are larger than memory, or that say they are."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from fedali.data import npz
from fedali.data.sources.own import load_own
from fedali.errors import DataError


def test_an_archive_larger_than_memory_says_how_large_it_is_and_how_much_there_is(tmp_path, monkeypatch):
    path = tmp_path / "large.npz"
    np.savez_compressed(path, x=np.zeros((3000, 50, 9)), y=np.zeros(3000), client=np.zeros(3000, int))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(npz, "free_memory", lambda: 5_000_000)
    said = r"large\.npz: 0\.011 GB of arrays do not fit in this machine's memory, of which 0\.005 GB are free; use fewer"
    with pytest.raises(DataError, match=said):
        load_own(path)
    monkeypatch.setattr(npz, "free_memory", lambda: None)
    assert npz.read_arrays(path)["x"].shape == (3000, 50, 9)


def test_an_array_that_claims_to_be_larger_than_its_file_is_no_reason_to_ask_for_memory(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 9)})
    path = tmp_path / "claims.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(72))
    with pytest.raises(DataError, match=r"claims\.npz"):
        npz.read_arrays(path)
