"""A joined device's files: parts of their own or one for all, and notes that are told once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedali.data.facts import DataFacts
from fedali.errors import DataError
from fedali.targets import Targets
from fedali_client.join.samples import DataFiles

MANIFEST = SimpleNamespace(
    input_shape=(8, 2),
    classes=("run", "sit"),
    targets=Targets(("run", "sit")),
    data=DataFacts(channels=("x", "y"), stride=4),
)


def write(path, each=80):
    random = np.random.default_rng(0)
    lines = [
        f"{label},{x},{y},1" for label in ("run", "sit") for x, y in random.normal(size=(each, 2)).round(3)
    ]
    path.write_text("\n".join(["label,x,y,battery", *lines]) + "\n")
    return path


def test_rows_are_cut_as_the_bundle_says_and_notes_are_told_once(tmp_path):
    told = []
    test = write(tmp_path / "test.csv", each=20)
    files = DataFiles(write(tmp_path / "train.csv"), None, test, tell=told.append)
    assert files.counts() == (0, 0)  # nobody knows yet
    for _ in range(2):
        assert len(files.training(MANIFEST)[0]) == 38
        assert files.read("validation", MANIFEST) is None
        x, y = files.read("test", MANIFEST)
        assert (x.shape, y.tolist()) == ((8, 8, 2), [0] * 4 + [1] * 4)
    assert [note.partition(": ")[0] for note in told] == [str(files.train), str(test)]
    assert all("columns that the model does not take are left out: battery" in note for note in told)


def test_one_file_for_all_gives_every_part(tmp_path):
    files = DataFiles(write(tmp_path / "all.csv"), whole=True)
    sizes = [len(files.read(part, MANIFEST)[0]) for part in ("train", "validation", "test")]
    assert sizes[0] > sizes[2] > sizes[1] > 0
    assert sum(sizes) < 38  # windows across a border are in none


def test_settings_of_the_device_go_before_the_bundles(tmp_path):
    files = DataFiles(write(tmp_path / "all.csv"), settings={"stride": 1, "columns.channels": ("y", "x")})
    x, _ = files.training(MANIFEST)
    plain, _ = DataFiles(tmp_path / "all.csv", settings={"stride": 1}).training(MANIFEST)
    assert len(x) == 2 * 73
    assert np.array_equal(x, plain[..., ::-1])


def test_files_that_no_model_could_take(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((0, 8, 2)), y=[])
    for name, line in (("missing.csv", "does not exist"), ("a.npz", "a.npz has no array|holds no samples")):
        with pytest.raises(DataError, match=line):
            DataFiles(tmp_path / name).counts()
