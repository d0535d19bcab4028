"""Labels of one's own data: none vanishes or becomes a class without a word."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedali.data import load_own
from fedali.data.device import read_file
from fedali.data.facts import NO_FACTS
from fedali.data.labels import labels_of
from fedali.data.samples import check_labels
from fedali.data.sources.reading import Reading
from fedali.errors import DataError
from fedali.targets import Targets

NOISE = np.random.default_rng(0).normal(size=1000).round(4)


def load(folder, stretches, reading=None, window=8):
    """``stretches`` are labels with their numbers of rows."""
    labels = [label for label, count in stretches for _ in range(count)]
    rows = [f"ann,{label},{NOISE[i]}" for i, label in enumerate(labels)]
    path = folder / "log.csv"
    path.write_text("\n".join(["client,label,x", *rows]) + "\n")
    return load_own(path, window=window, stride=4, reading=reading or Reading())


def test_a_class_that_is_too_short_for_a_window_is_named(tmp_path):
    data = load(tmp_path, [("sit", 40), ("jump", 5), ("walk", 40), ("jump", 7), ("hop", 3), ("sit", 6)])
    assert data.class_names == ("sit", "walk")
    assert data.notes == (
        "21 of 101 rows are left out: they are in 4 stretches of one label shorter than 8 rows",
        "class 'jump' is left out: its 2 stretches have 7 rows at most, and a window needs 8",
        "class 'hop' is left out: its one stretch has 3 rows, and a window needs 8",
    )


@pytest.mark.parametrize("none", ["-1", "-999", "", "?", "NaN", "-1.0"])
def test_what_has_no_label_is_refused_until_it_is_named_and_then_left_out(tmp_path, none):
    stretches = [("1", 40), (none, 20), ("2", 40)]
    with pytest.raises(
        DataError, match=rf"line 42: label is .*data\.unlabelled = \[\"{none.replace('?', '.')}\"\]"
    ) as caught:
        load(tmp_path, stretches)
    assert "\n" not in str(caught.value)
    data = load(tmp_path, stretches, Reading(unlabelled=("0", none)))
    assert data.class_names == ("1", "2")
    assert data.start.tolist() == [*range(0, 33, 4), *range(60, 93, 4)]
    assert data.notes == ("20 of 100 rows are left out: they have no label (data.unlabelled)",)


def test_a_negative_number_may_be_a_class(tmp_path):
    data = load(tmp_path, [("-1", 40), ("1", 40)], Reading(unlabelled=()))
    assert data.class_names == ("-1", "1")


def test_whole_floats_are_whole_numbers_and_zeros_in_front_are_not(tmp_path):
    plain = load(tmp_path, [("10", 40), ("9", 40)])
    floats = load(tmp_path, [("10.0", 40), ("9.0", 40)])
    assert plain.class_names == floats.class_names == ("9", "10")
    assert np.array_equal(plain.y, floats.y)
    assert load(tmp_path, [("1", 40), ("01", 40), ("001", 40)]).class_names == ("001", "01", "1")
    for bad in ("1_0", "1.5", "1e3"):
        with pytest.raises(DataError, match=f"label '{bad}' is neither a whole number nor a name"):
            load(tmp_path, [(bad, 40), ("1", 40)])


def save(folder, y, **more):
    x = np.random.default_rng(1).normal(size=(len(y), 4)).astype(np.float32)
    np.savez(folder / "mine.npz", x=x, y=y, client=np.arange(len(y)) % 2, **more)
    return folder / "mine.npz", x


Y = np.arange(30) % 3


@pytest.mark.parametrize(
    "y", [Y[:, None], Y.astype(float), Y[:, None].astype(np.float32), np.eye(3)[Y], np.eye(3, dtype=bool)[Y]]
)
def test_arrays_of_labels(tmp_path, y):
    data = load_own(save(tmp_path, y)[0])
    assert data.y.tolist() == Y.tolist()
    assert data.class_names == ("0", "1", "2")
    named = load_own(save(tmp_path, y, class_names=["a", "b", "c"])[0])
    assert named.class_names == ("a", "b", "c")
    assert check_labels(y, ("a", "b", "c"), 30).tolist() == Y.tolist()


def test_booleans_are_words():
    assert labels_of(np.array([True, False]), 2, "f") == ["True", "False"]
    assert check_labels(np.array([True, False]), ("False", "True"), 2).tolist() == [1, 0]


@pytest.mark.parametrize("none", [-1, np.nan])
def test_samples_without_a_label(tmp_path, none):
    y = np.where(np.arange(30) % 10 == 0, none, Y)
    path, x = save(tmp_path, y)
    with pytest.raises(DataError, match=r"mine.npz: label y of row 0 is .*data\.unlabelled"):
        load_own(path)
    data = load_own(path, reading=Reading(unlabelled=("-1", "nan")))
    kept = np.arange(30) % 10 != 0
    assert np.array_equal(data.x, x[kept])
    assert data.y.tolist() == Y[kept].tolist()
    assert data.notes == ("3 of 30 samples are left out: they have no label (data.unlabelled)",)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((30, 3)), r"y has shape \[30, 3\]"),
        (np.where(Y == 0, 0.5, np.nan), "labels y are float64"),
        (np.full(30, 1j), "labels y are complex128"),
    ],
)
def test_arrays_that_are_no_labels(tmp_path, y, message):
    with pytest.raises(DataError, match=message):
        load_own(save(tmp_path, y)[0])


@pytest.mark.parametrize(
    ("classes", "y", "expected"),
    [
        (("1", "2", "3"), [1, 2, 3], [0, 1, 2]),  # names, as a simulation reads them
        (("1", "2", "3"), [3.0, 1.0, 3.0], [2, 0, 2]),
        (("rest", "run", "walk"), [2, 0, 1], [2, 0, 1]),
        (("0", "1", "2"), [2, 0, 1], [2, 0, 1]),
        (("5", "7", "9"), [0, 1, 2], [0, 1, 2]),
        (("1", "2", "3"), ["1", "2", "2"], [0, 1, 1]),
    ],
)
def test_whole_numbers_of_a_device_mean_what_they_mean_in_a_simulation(tmp_path, classes, y, expected):
    manifest = SimpleNamespace(input_shape=(4,), classes=classes, targets=Targets(classes), data=NO_FACTS)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4)), y=y)
    assert read_file(tmp_path / "a.npz", manifest).y.tolist() == expected


def test_whole_numbers_that_may_be_names_or_places_are_refused(tmp_path):
    manifest = SimpleNamespace(
        input_shape=(4,), classes=("1", "2", "3"), targets=Targets(("1", "2", "3")), data=NO_FACTS
    )
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4)), y=[1, 2, 1])
    with pytest.raises(
        DataError, match="1 is class '1' by name and '2' by place; save them as strings, or add class_names"
    ):
        read_file(tmp_path / "a.npz", manifest)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4)), y=[0, 1, 2])
    with pytest.raises(DataError, match="1 is class '1' by name and '2' by place"):
        read_file(tmp_path / "a.npz", manifest)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4)), y=[1, 9, 1])
    with pytest.raises(DataError, match=r"y\[1\] is '9', no class of this model"):
        read_file(tmp_path / "a.npz", manifest)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4)), y=[1, 2, 1], class_names=["3", "1", "2"])
    assert read_file(tmp_path / "a.npz", manifest).y.tolist() == [0, 1, 0]
