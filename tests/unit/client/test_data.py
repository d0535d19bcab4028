"""What samples and labels from outside are refused for, and that the line says what to mend."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.data.device import read_file
from fedali.data.npz import read_shapes
from fedali.data.samples import check_labels, check_samples
from fedali.errors import DataError
from fedali_client.data import read_line

CLASSES = ("rest", "walk", "run")
SHAPE = (6, 3)


def test_one_sample_is_a_batch_of_one():
    assert check_samples(np.zeros(SHAPE), SHAPE).shape == (1, 6, 3)
    assert check_samples(np.zeros((4, *SHAPE), np.uint8), SHAPE).shape == (4, 6, 3)


def _with(value, at):
    x = np.zeros((300, *SHAPE))
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.zeros((5, 3, 6)), r"x has shape \[5, 3, 6\]; this model takes \[n, 6, 3\]"),
        (np.zeros((0, 6, 3)), "x holds no samples"),
        (_with(np.nan, (290, 2, 1)), r"x\[290, 2, 1\] is nan; repair or leave out sample 290"),
        (_with(-np.inf, (7, 0, 0)), r"x\[7, 0, 0\] is -inf"),
        (_with(1e300, (1, 0, 0)), r"x\[1, 0, 0\] is 1e\+300"),
        ([["a"]], "x is <U1; make it numbers"),
        ([[1.0], [1.0, 2.0]], "x is no array"),
    ],
)
def test_samples_are_refused(x, line):
    with pytest.raises(DataError, match=line):
        check_samples(x, SHAPE)


def test_labels_are_indices_or_names():
    assert check_labels([2, 0], CLASSES, 2).tolist() == [2, 0]
    assert check_labels(np.array(["run", "rest"]), CLASSES, 2).tolist() == [2, 0]
    assert check_labels(["walk"], CLASSES, 1).tolist() == [1]


@pytest.mark.parametrize(
    ("y", "line"),
    [
        ([0, 3], r"y\[1\] is 3; this model has the classes 0..2: rest, walk, run"),
        ([0, -1], r"y\[1\] is -1"),
        (["rest", "wlak"], r"y\[1\] is 'wlak', no class of this model; did you mean 'walk'\?"),
        ([0], r"y has shape \[1\]; 2 samples need one label each: \[2\]"),
        ([0.5, 1.0], "y is float64; make it integers or the names of classes"),
    ],
)
def test_labels_are_refused(y, line):
    with pytest.raises(DataError, match=line):
        check_labels(y, CLASSES, 2)


def test_files(tmp_path, bundle):
    manifest = bundle.manifest
    x = np.arange(144, dtype=np.float32).reshape(2, *bundle.manifest.input_shape)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["run", "walk"]))
    np.savez(tmp_path / "own.npz", x=x, y=[0, 1], class_names=["walk", "run"])
    np.savez(tmp_path / "odd.npz", x=x, y=[0, 1], class_names=["walk", "swim"])
    np.savez(tmp_path / "z.npz", z=x)
    np.savez(tmp_path / "object.npz", x=np.array([x, None], object))
    np.save(tmp_path / "b.npy", x)
    np.save(tmp_path / "object.npy", np.array([x, None], object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "c.csv").write_text("1,2")
    (tmp_path / "c.xls").write_text("1,2")
    found = read_file(tmp_path / "a.npz", manifest)
    assert (found.x == x).all()
    assert found.y.tolist() == [2, 1]
    assert read_file(tmp_path / "own.npz", manifest).y.tolist() == [1, 2]
    assert (read_file(tmp_path / "b.npy", manifest, labels="none").x == x).all()
    for name, line in {
        "missing.npz": "does not exist",
        "z.npz": "lacks the array 'x'; .*known: z",
        "object.npz": "Python objects",
        "b.npy": "neither .npz nor .csv",
        "broken.npz": "is broken",
        "c.xls": "unknown ending '.xls', neither .npz nor .csv",
        "c.csv": r"its first line has values \('1'\), no names; name all columns",
        "odd.npz": r"y\[1\] is 'swim', no class",
    }.items():
        with pytest.raises(DataError, match=line):
            read_file(tmp_path / name, manifest)
    with pytest.raises(DataError, match="Python objects"):
        read_file(tmp_path / "object.npy", manifest, labels="none")


def test_shapes_are_known_without_reading_the_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((5, *SHAPE), np.float16), y=np.array(["run"] * 5), z=np.float64(1))
    assert read_shapes(path) == {"x": (5, *SHAPE), "y": (5,), "z": ()}
    np.savez_compressed(path, x=np.asfortranarray(np.zeros((2, 7))), long=np.zeros(3, [("é" * 9, float)]))
    assert read_shapes(path) == {"x": (2, 7), "long": (3,)}
    whole = path.read_bytes()
    for data in (b"", b"PK\x03\x04 and so on", whole[:-30]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.npz is broken"):
            read_shapes(path)


def test_lines():
    assert read_line('{"x": [[1, 2]], "label": "run"}', (1, 2), 1).tolist() == [[[1, 2]]]
    assert read_line("[[[1, 2]], [[3, 4]]]", (1, 2), 1).shape == (2, 1, 2)
    for line, complaint in {
        "{": "line 7 is no JSON",
        '{"y": 1}': 'line 7 has no "x"; it has y',
        "[[1, 2, 3]]": r"line 7 has shape \[1, 3\]",
        "[[1, NaN]]": r"line 7\[0, 0, 1\] is nan",
        '"walk"': "line 7 is <U4",
    }.items():
        with pytest.raises(DataError, match=complaint):
            read_line(line, (1, 2), 7)
