import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError
from tests.unit.data.public.forms import FORMS, blanks, put, signal, windows

LABELS = [(1, 1, 5, 11, 60), (1, 1, 7, 61, 85), (2, 1, 1, 5, 64), (3, 2, 1, 1, 50), (3, 2, 12, 60, 100)]
"""Experiment, user, activity, first and last sample, from 1 on."""
ROWS = {(1, 1): 90, (2, 1): 70, (3, 2): 100}


def recorded(experiment, user):
    return signal(experiment, ROWS[experiment, user], 6)


def files():
    found = {"HAPT Data Set/README.txt": "Smartphone-Based"}
    for experiment, user in ROWS:
        values, tail = recorded(experiment, user), f"exp{experiment:02d}_user{user:02d}.txt"
        found[f"HAPT Data Set/RawData/acc_{tail}"] = blanks(values[:, :3])
        found[f"HAPT Data Set/RawData/gyro_{tail}"] = blanks(values[:, 3:])
    lines = "".join(" ".join(map(str, row)) + " \n" for row in LABELS)
    found["HAPT Data Set/RawData/labels.txt"] = lines
    return {"HAPT Data Set.zip": found}


@pytest.mark.parametrize("form", FORMS)
def test_stretches_are_those_of_the_labels(tmp_path, form):
    data = load_public("hapt", put(tmp_path, files(), form), window=20, stride=10)
    expected = [windows(recorded(e, u)[first - 1 : last], 20, 10) for e, u, _, first, last in LABELS]
    assert np.array_equal(data.x, np.concatenate(expected))
    counts = [4, 1, 5, 4, 3]
    assert [len(x) for x in expected] == counts
    assert data.y.tolist() == np.repeat([4, 6, 0, 0, 11], counts).tolist()
    assert data.class_names[6] == "STAND_TO_SIT"
    assert len(data.class_names) == 12
    assert data.client_names == ("subject-1", "subject-2")
    assert data.recording.tolist() == [0] * 5 + [1] * 5 + [2] * 7
    assert data.start.tolist()[:6] == [10, 20, 30, 40, 60, 4]
    assert "samples without a label, left out: 34" in data.notes
    assert data.channel_names == ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
    assert data.licence.startswith("CC BY 4.0")
    assert "doi:10.1016/j.neucom.2015.07.085" in data.citation


def test_a_transition_shorter_than_a_window_is_counted(tmp_path):
    data = load_public("hapt", put(tmp_path, files(), "unpacked"), window=30, stride=30)
    assert "stretches shorter than a window of 30, left out (data.window): 1" in data.notes


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    lacking = files()
    del lacking["HAPT Data Set.zip"]["HAPT Data Set/RawData/gyro_exp02_user01.txt"]
    with pytest.raises(
        DataError, match=r"holds no RawData/gyro_exp02_user01\.txt; get HAPT Data Set\.zip from"
    ):
        load_public("hapt", put(tmp_path / "a", lacking, "unpacked"))
    odd = files()
    odd["HAPT Data Set.zip"]["HAPT Data Set/RawData/labels.txt"] += "3 2 13 1 50\n"
    with pytest.raises(DataError, match=r"labels\.txt:6: '3 2 13 1 50' is no stretch of an activity 1\.\.12"):
        load_public("hapt", put(tmp_path / "b", odd, "unpacked"))
    cut = put(tmp_path / "c", files(), "as downloaded")
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"set\.zip is broken \(File is not a zip file\); get HAPT"):
        load_public("hapt", cut)
    empty = files()
    empty["HAPT Data Set.zip"]["HAPT Data Set/RawData/acc_exp02_user01.txt"] = ""
    with pytest.raises(DataError, match=r"acc_exp02_user01\.txt is empty; get"):
        load_public("hapt", put(tmp_path / "d", empty, "as downloaded"))


def test_a_zip_whose_bytes_are_damaged_inside_is_one_line(tmp_path):
    path = put(tmp_path, files()["HAPT Data Set.zip"], "as downloaded")
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"set\.zip/HAPT Data Set/RawData/acc_exp01_user01\.txt is broken \("):
        load_public("hapt", path)
