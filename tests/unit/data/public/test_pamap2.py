import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError, SettingsError
from tests.unit.data.public.forms import FORMS, blanks, put, same, signal, windows

STRETCHES = [(0, 20), (1, 60), (0, 10), (24, 45)]
FIRST = {"hand": 3, "chest": 20, "ankle": 37}
USUAL = [FIRST[place] + k for place in FIRST for k in (1, 2, 3, 7, 8, 9, 10, 11, 12)]


def table(person):
    """54 columns: time, activity, heart rate at 9 Hz, and three sensors."""
    values = np.round(signal(person, sum(rows for _, rows in STRETCHES), 54), 3)
    values[:, 0] = np.round(8.38 + np.arange(len(values)) / 100, 2)
    values[:, 1] = np.concatenate([np.full(rows, activity) for activity, rows in STRETCHES])
    values[:, 2] = np.where(np.arange(len(values)) % 11 == 0, 101, np.nan)
    return values


def files(tables):
    inner = {f"PAMAP2_Dataset/Protocol/subject{k}.dat": blanks(rows, "{:g}") for k, rows in tables.items()}
    inner["PAMAP2_Dataset/Optional/subject101.dat"] = blanks(table(1), "{:g}")
    return {"readme.pdf": b"%PDF", "PAMAP2_Dataset.zip": inner}


@pytest.mark.parametrize("form", FORMS)
def test_stretches_are_those_of_the_protocol(tmp_path, form):
    tables = {101: table(101), 105: table(105)}
    data = load_public("pamap2", put(tmp_path, files(tables), form), window=20, stride=10)
    x = [windows(rows[a:b, USUAL], 20, 10) for rows in tables.values() for a, b in ((20, 80), (90, 135))]
    assert np.array_equal(data.x, np.concatenate(x))
    assert data.channel_names[:4] == ("hand_acc_x", "hand_acc_y", "hand_acc_z", "hand_gyro_x")
    assert [data.class_names[y] for y in data.y[:8]] == ["lying"] * 5 + ["rope jumping"] * 3
    assert data.client_names == ("subject-101", "subject-105")
    assert data.recording.tolist() == [0] * 8 + [1] * 8
    assert data.start.tolist()[:8] == [20, 30, 40, 50, 60, 90, 100, 110]
    assert "samples of activity 0, between activities, left out: 60" in data.notes
    assert "people without a window: 102, 103, 104, 106, 107, 108, 109" in data.notes


def test_short_holes_are_bridged_and_no_window_crosses_a_long_one(tmp_path):
    rows = table(101)
    rows[30:40, 4] = np.nan  # ten samples of hand_acc_x, in lying
    rows[100:111, 30] = np.nan  # eleven of chest_mag_x, in rope jumping
    rows[95, 5] = np.nan
    data = load_public("pamap2", put(tmp_path, files({101: rows}), "unpacked"), window=10, stride=10)
    assert "values in holes of up to 0.1 s, put on a straight line between neighbours: 11" in data.notes
    assert "samples with missing values, left out: 11" in data.notes
    assert data.start.tolist() == [20, 30, 40, 50, 60, 70, 90, 111, 121]
    slope = (rows[40, 4] - rows[29, 4]) / 11
    assert np.allclose(data.x[1, :, 0], rows[29, 4] + slope * np.arange(1, 11), atol=1e-6)
    assert np.isclose(data.x[6, 5, 1], (rows[94, 5] + rows[96, 5]) / 2)


def test_no_window_crosses_lost_time(tmp_path):
    rows = table(101)
    rows[50:, 0] += 0.2
    path = put(tmp_path, files({101: rows}), "unpacked")
    data = load_public("pamap2", path, window=20, stride=20)
    assert data.start.tolist() == [20, 50, 90, 110]
    assert load_public("pamap2", path, window=20, stride=20, gap=30).start.tolist() == [20, 40, 60, 90, 110]


def test_channels_are_chosen(tmp_path):
    rows = table(101)
    path = put(tmp_path, files({101: rows}), "as downloaded")
    data = load_public("pamap2", path, window=20, stride=20, channels=["ankle_acc6_z", "hand_acc_x"])
    assert np.array_equal(data.x[0], rows[20:40, [37 + 6, 4]].astype(np.float32))
    with pytest.raises(
        SettingsError, match=r"data\.columns\.channels: pamap2 has no 'hand_acc_w'; did you mean 'hand_acc_"
    ):
        load_public("pamap2", path, channels=["hand_acc_w"])
    with pytest.raises(SettingsError, match="names a channel twice: hand_acc_x, hand_acc_x"):
        load_public("pamap2", path, channels=["hand_acc_x"] * 2)


def test_what_lies_twice_is_read_once_and_two_of_one_person_are_refused(tmp_path):
    tables = {101: table(101)}
    both = files(tables)
    plain = load_public("pamap2", put(tmp_path / "a", both, "as downloaded"), window=20, stride=10)
    path = put(tmp_path / "b", both | both["PAMAP2_Dataset.zip"], "outer unpacked")
    assert same(load_public("pamap2", path, window=20, stride=10), plain)
    twice = files(tables)
    twice["copy/Protocol/subject101.dat"] = blanks(table(102))
    twice["old/Protocol/subject101.dat"] = blanks(table(103))
    with pytest.raises(
        DataError,
        match=r"copy/Protocol/subject101\.dat and .*old/Protocol/subject101\.dat are the same; keep one",
    ):
        load_public("pamap2", put(tmp_path / "c", twice, "outer unpacked"))


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    with pytest.raises(
        DataError, match=r"set holds no Protocol/subject101\.dat; get PAMAP2_Dataset\.zip from https://"
    ):
        load_public("pamap2", put(tmp_path / "a", {"PAMAP2_Dataset/Optional/x.dat": "1"}, "unpacked"))
    cut = files({101: table(101)})
    name = "PAMAP2_Dataset/Protocol/subject101.dat"
    cut["PAMAP2_Dataset.zip"][name] = cut["PAMAP2_Dataset.zip"][name][:-200]
    with pytest.raises(
        DataError, match=r"Protocol/subject101\.dat is broken: .*at row 135 with \d+ columns; get"
    ):
        load_public("pamap2", put(tmp_path / "b", cut, "as downloaded"))
    odd = table(101)
    odd[90:, 1] = 9
    with pytest.raises(DataError, match=r"subject101\.dat:91: activity 9 is none of PAMAP2's protocol"):
        load_public("pamap2", put(tmp_path / "c", files({101: odd}), "unpacked"), window=20)
