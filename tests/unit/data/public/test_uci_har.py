import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError, SettingsError
from tests.unit.data.public.forms import FORMS, put, same, signal, windows

CHANNELS = [f"{sensor}_{axis}" for sensor in ("total_acc", "body_gyro", "body_acc") for axis in "xyz"]
PEOPLE = {"train": [(1, 5, 5), (1, 5, 2), (3, 1, 4)], "test": [(2, 1, 3), (2, 5, 4)]}
"""Person, activity 1..6 and windows of each stretch that goes on without a break."""


def stretches():
    return {
        (part, number): windows(signal(10 * number + len(part), 64 * (count + 1), 9), 128, 64)
        for part, rows in PEOPLE.items()
        for number, (_, _, count) in enumerate(rows)
    }


def files():
    """UCI HAR as its zip holds it: numbers in fields of 16, a blank or two before each."""
    cut, found = stretches(), {"UCI HAR Dataset/README.txt": "Human Activity Recognition"}
    found["__MACOSX/UCI HAR Dataset/train/._y_train.txt"] = "litter"
    for part, rows in PEOPLE.items():
        x = np.concatenate([cut[part, number] for number in range(len(rows))])
        for place, channel in enumerate(CHANNELS):
            text = "".join("".join(f" {v: .7e}" for v in row) + "\n" for row in x[:, :, place].tolist())
            found[f"UCI HAR Dataset/{part}/Inertial Signals/{channel}_{part}.txt"] = text
        for what, column in (("subject", 0), ("y", 1)):
            lines = [f"{row[column]}\n" * row[2] for row in rows]
            found[f"UCI HAR Dataset/{part}/{what}_{part}.txt"] = "".join(lines)
    return {"UCI HAR Dataset.names": "=====", "UCI HAR Dataset.zip": found}


@pytest.mark.parametrize("form", FORMS)
def test_windows_are_those_of_the_files_and_recordings_those_that_go_on(tmp_path, form):
    data = load_public("uci-har", put(tmp_path, files(), form))
    cut = stretches()
    expected = [cut["train", 0], cut["train", 1], cut["test", 0], cut["test", 1], cut["train", 2]]
    assert np.array_equal(data.x, np.concatenate(expected)[:, :, :6])
    assert data.channel_names == tuple(CHANNELS[:6])
    assert data.client_names == ("subject-1", "subject-2", "subject-3")
    assert data.client.tolist() == [0] * 7 + [1] * 7 + [2] * 4
    assert [data.class_names[y] for y in data.y[[0, 7, 10]]] == ["STANDING", "WALKING", "STANDING"]
    assert len(data.class_names) == 6
    assert data.recording.tolist() == [0] * 5 + [1] * 2 + [2] * 3 + [3] * 4 + [4] * 4
    assert data.start.tolist() == [0, 64, 128, 192, 256, 0, 64, 0, 64, 128, 0, 64, 128, 192, 0, 64, 128, 192]
    assert data.length == 128
    assert any("people without a window: 4, 5" in note for note in data.notes)


def test_windows_of_two_activities_that_share_samples_are_one_recording(tmp_path):
    whole = files()
    inner = whole["UCI HAR Dataset.zip"]
    inner["UCI HAR Dataset/train/y_train.txt"] = "5\n5\n4\n4\n4\n" + "5\n" * 2 + "1\n" * 4
    data = load_public("uci-har", put(tmp_path, whole, "unpacked"), subjects=[1])
    assert data.recording.tolist() == [0] * 5 + [1] * 2
    assert data.y.tolist() == [4, 4, 3, 3, 3, 4, 4]


def test_channels_and_people_are_chosen(tmp_path):
    path = put(tmp_path, files(), "as downloaded")
    data = load_public("uci-har", path, channels=["body_acc_z", "total_acc_x"], subjects=["2"])
    every = load_public("uci-har", path, channels=CHANNELS)
    assert data.client_names == ("subject-2",)
    assert np.array_equal(data.x, every.x[every.client == 1][:, :, [8, 0]])
    again = load_public("uci-har", path, channels=["body_acc_z", "total_acc_x"], subjects=[2])
    assert same(data, again)


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    lacking = files()
    del lacking["UCI HAR Dataset.zip"]["UCI HAR Dataset/test/Inertial Signals/body_gyro_y_test.txt"]
    with pytest.raises(
        DataError,
        match=r"holds no test/Inertial Signals/body_gyro_y_test\.txt; get UCI HAR Dataset\.zip from https://.*data\.source = 'uci-har:PATH'",
    ):
        load_public("uci-har", put(tmp_path / "a", lacking, "unpacked"))
    short = files()
    name = "UCI HAR Dataset/test/Inertial Signals/body_gyro_y_test.txt"
    short["UCI HAR Dataset.zip"][name] = short["UCI HAR Dataset.zip"][name].replace("e+00", "e+00 x", 3)
    with pytest.raises(DataError, match=r"body_gyro_y_test\.txt is broken: could not convert string 'x'"):
        load_public("uci-har", put(tmp_path / "b", short, "unpacked"))
    rows = files()
    rows["UCI HAR Dataset.zip"]["UCI HAR Dataset/train/y_train.txt"] = "5\n" * 9
    with pytest.raises(DataError, match="train has 11 windows of 128, 9 labels and 11 subjects"):
        load_public("uci-har", put(tmp_path / "c", rows, "unpacked"))
    with pytest.raises(DataError, match=r"holds no train/Inertial Signals/total_acc_x_train\.txt"):
        load_public("uci-har", put(tmp_path / "d", {"README.txt": "nothing"}, "as downloaded"))


def test_its_windows_cannot_be_cut_otherwise(tmp_path):
    with pytest.raises(
        SettingsError, match="uci-har comes in windows of 128 every 64 samples, not 64 every 32"
    ):
        load_public("uci-har", tmp_path, window=64, stride=32)
