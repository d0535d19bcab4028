"""What a site that holds data reads: files for each part or one for all, of npz or CSV, and one line for what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from fedali.data import Columns, Reading
from fedali.data.device import SHARES
from fedali.data.facts import NO_FACTS, DataFacts
from fedali.data.split import split
from fedali.errors import DataError, MisfitError
from fedali.targets import Targets
from fedali_server.site.files import ClientFiles
from fedali_server.site.folder import open_folder


def manifest_of(shape, *classes, data=NO_FACTS):
    return SimpleNamespace(input_shape=shape, classes=classes, targets=Targets(classes), data=data)


MANIFEST = manifest_of((8, 2), "run", "sit", "walk")


def rows(labels, each=40, recordings=1, channels=2):
    """The text of a CSV, and its numbers by label."""
    lines = [",".join(["label", "recording", *"xyz"[:channels]])]
    values = {}
    for label in labels:
        found = np.random.default_rng(len(values)).standard_normal((recordings, each, channels)).round(3)
        values[label] = found
        for number, recording in enumerate(found):
            lines += [f"{label},{label}-{number},{','.join(map(str, row))}" for row in recording.tolist()]
    return "\n".join(lines) + "\n", values


def test_csv_for_each_part_becomes_windows(tmp_path):
    (tmp_path / "a").mkdir()
    text, values = rows(["sit", "run"])
    (tmp_path / "a" / "train.csv").write_text(text)
    np.savez(tmp_path / "a" / "test.npz", x=np.ones((3, 8, 2)), y=["walk", "sit", "sit"])
    files = open_folder(tmp_path, ["a", "b"])["a"]
    x, y = files.train(MANIFEST)
    assert (x.shape, x.dtype, y.tolist()) == ((18, 8, 2), np.float32, [1] * 9 + [0] * 9)
    assert np.array_equal(x[1], values["sit"][0, 4:12].astype(np.float32))
    assert files.validation(MANIFEST) is None
    assert files.test(MANIFEST)[1].tolist() == [2, 1, 1]
    assert len(ClientFiles(tmp_path / "a", {"stride": 8}).train(MANIFEST)[0]) == 10


def test_one_file_for_all_is_split_in_time_without_a_leak(tmp_path):
    text, values = rows(["sit", "run", "walk"], each=200)
    (tmp_path / "a.csv").write_text(text)
    files = open_folder(tmp_path, ["a"])["a"]
    assert files.there
    parts = [files.train(MANIFEST), files.validation(MANIFEST), files.test(MANIFEST)]
    for label, name in enumerate(MANIFEST.classes):
        of_class = [x[y == label] for x, y in parts]
        ends = [values[name][0].astype(np.float32).tolist().index(x[-1, -1].tolist()) for x in of_class]
        begins = [values[name][0].astype(np.float32).tolist().index(x[0, 0].tolist()) for x in of_class]
        assert begins[0] < ends[0] < begins[1] < ends[1] < begins[2]
    assert [round(len(x) / sum(len(x) for x, _ in parts), 1) for x, _ in parts] == [0.6, 0.1, 0.3]
    (tmp_path / "a.csv").write_text(
        rows(["sit", "run", "walk"], each=100)[0]
    )  # replaced while the site waits
    assert len(files.train(MANIFEST)[0]) < len(parts[0][0])


def test_one_npz_for_all_is_split_as_a_simulation_splits_it(tmp_path):
    x, y = np.random.default_rng(0).standard_normal((60, 8, 2)), np.arange(60) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y, class_names=["walk", "run", "sit"])
    files = open_folder(tmp_path, ["a"])["a"]
    expected = split(y, np.arange(60), np.zeros(60, int), 0, fractions=SHARES, order="time")
    for part in ("train", "validation", "test"):
        found, labels = getattr(files, part)(MANIFEST)
        where = getattr(expected, part)
        assert np.array_equal(found, x[where].astype(np.float32))
        assert labels.tolist() == [[2, 0, 1][k] for k in y[where]]


def test_the_bundle_knows_how_files_are_read_and_settings_go_before(tmp_path):
    text, values = rows(["sit", "run"])
    (tmp_path / "a.csv").write_text(text.replace("label", "activity").replace(",", ";"))
    reading = Reading(columns=Columns(label="activity"))
    knows = manifest_of((8, 2), *MANIFEST.classes, data=DataFacts(("y", "x"), 2, reading=reading))
    files = open_folder(tmp_path, ["a"])["a"]
    x, y = files.train(knows)
    assert np.array_equal(x[y == 1][1], values["sit"][0, 2:10, ::-1].astype(np.float32))
    every = open_folder(tmp_path, ["a"], {"stride": 1})["a"].train(knows)[0]
    assert np.array_equal(every[1], values["sit"][0, 1:9, ::-1].astype(np.float32))
    named = {"columns.label": "activity", "columns.channels": ("x", "y"), "separator": ";"}
    assert len(open_folder(tmp_path, ["a"], named)["a"].train(MANIFEST)[0]) == 8
    with pytest.raises(MisfitError, match="lacks the channel 'z' that the model takes"):
        files.train(manifest_of((8, 2), *MANIFEST.classes, data=DataFacts(("x", "z"), reading=reading)))


def test_whole_numbers_are_classes_of_that_name_else_of_that_place(tmp_path):
    named = manifest_of((8, 2), "1", "2", "7")
    for manifest, labels in ((named, (7, 1)), (MANIFEST, (2, 0))):
        (tmp_path / "a.csv").write_text(rows(labels)[0])
        assert set(ClientFiles(tmp_path / "a").train(manifest)[1].tolist()) == {2, 0}


def test_what_does_not_fit_or_is_broken_is_one_line(tmp_path):
    files = ClientFiles(tmp_path / "a")
    images = manifest_of((1, 8, 8), *MANIFEST.classes)
    for text, manifest, line, public in (
        (rows(["sit", "jump"])[0], MANIFEST, "'jump', no class of this model", "a label that is none of"),
        (rows(["sit"], channels=3)[0], MANIFEST, r"x has shape \[9, 8, 3\]", "windows of 8 with 3 channels"),
        (rows(["sit"])[0], images, "save .npz", "no windows"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(MisfitError, match=line) as error:
            files.train(manifest)
        assert public in error.value.public
    for text, line in (
        ("client,label,x\n", "has a column 'client'"),
        ("", "is empty"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=line):
            open_folder(tmp_path, ["a"])
    (tmp_path / "a.csv").write_text(rows(["sit"], each=5)[0])
    with pytest.raises(DataError, match="holds no samples"):
        files.train(MANIFEST)
    (tmp_path / "a.csv").write_text("activity,x,y\nsit,1,2\n")
    with capture_logs() as logs:
        open_folder(tmp_path, ["a"])  # a bundle may know another name of it
    assert "lacks the column 'label'" in logs[0]["note"]
    with pytest.raises(DataError, match=r"lacks the column 'what' that data\.columns\.label names"):
        open_folder(tmp_path, ["a"], {"columns.label": "what"})
    np.savez(tmp_path / "a.npz", x=np.ones((3, 8, 2)), y=[0, 1, 2])
    with pytest.raises(DataError, match=r"a\.npz and .*a\.csv are both there; leave one of them"):
        open_folder(tmp_path, ["a"])
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a\.npz and .*/a are both there"):
        open_folder(tmp_path, ["a"])
    assert files.there
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a" / "train.csv").write_text("label\n")
    with pytest.raises(DataError, match="has no channels"):
        open_folder(tmp_path, ["a"])
