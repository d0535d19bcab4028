import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError, SettingsError
from tests.unit.data.public.forms import FORMS, put, signal, tarred, windows

STEP = 50_000_000  # ns, of 20 Hz
TEXT = "WISDM_ar_v1.1/WISDM_ar_v1.1_raw.txt"


def record(person, activity, time, values):
    return f"{person},{activity},{time}," + ",".join(f"{v:.3f}" for v in values) + ";"


def recordings(person, activity, begin, rows, seed):
    values = signal(seed, rows, 3)
    return values, [record(person, activity, begin + k * STEP, v) for k, v in enumerate(values)]


def old():
    """WISDM 2011 with all that is odd in it: two records in a line, commas, lost numbers, zeros, moments twice."""
    jog, lines = recordings(33, "Jogging", 49105962326000, 40, 1)
    sit, more = recordings(33, "Sitting", 49205962326000, 40, 2)
    walk, last = recordings(7, "Walking", 12345000000, 30, 3)
    lines[3:5] = [lines[3] + lines[4]]  # no new line between two
    lines[8] = lines[8].replace(";", ",;")
    more[10:10] = [more[9], more[9]]  # the same moment three times
    more.insert(20, "33,Sitting,0,0,0,0.0;")
    more.insert(25, "33,Sitting,49206,4.4,4.4,;")
    more += ["", ";", "33,Sitting"]
    text = "\n".join([*lines, *more, *last, "11,Walking,1867172313000,4.4,4.4,"])
    return (jog, sit, walk), {TEXT: text, "WISDM_ar_v1.1/readme.txt": "Activity Prediction"}


@pytest.mark.parametrize("form", ["tar", "unpacked", "file"])
def test_2011_gives_the_records_that_are_whole(tmp_path, form):
    (jog, sit, walk), files = old()
    path = tmp_path / "set" if form != "tar" else tarred(tmp_path / "WISDM_ar_latest.tar.gz", files)
    if form != "tar":
        put(tmp_path, files, "unpacked")
    data = load_public("wisdm-2011", path / TEXT if form == "file" else path, window=20, stride=10)
    assert data.client_names == ("subject-7", "subject-33")
    assert np.array_equal(data.x, np.concatenate([windows(v, 20, 10) for v in (walk, jog, sit)]))
    assert [data.class_names[y] for y in data.y] == ["Walking"] * 2 + ["Jogging"] * 3 + ["Sitting"] * 3
    assert data.recording.tolist() == [0] * 2 + [1] * 3 + [2] * 3
    assert data.start.tolist() == [0, 10, 0, 10, 20, 0, 10, 20]
    for note in (
        "lines that are no record, left out: 3",
        "records at time 0, left out: 1",
        "records of a moment that was there before, left out: 2",
    ):
        assert note in data.notes


def test_2011_no_window_crosses_a_pause_or_a_clock_that_goes_back(tmp_path):
    first, lines = recordings(1, "Walking", 10**12, 30, 1)
    later, more = recordings(1, "Walking", 10**12 + 30 * STEP + 9 * STEP + 1, 30, 2)
    before, back = recordings(1, "Walking", 10**9, 30, 3)
    sit, other = recordings(1, "Sitting", 10**13, 20, 4)
    put(tmp_path, {TEXT: "\n".join([*lines, *more, *back, *other])}, "unpacked")
    data = load_public("wisdm-2011", tmp_path / "set", window=20, stride=20)
    assert np.array_equal(data.x, np.stack([v[:20] for v in (first, later, before, sit)]).astype(np.float32))
    assert data.recording.tolist() == [0, 1, 2, 3]
    wider = load_public("wisdm-2011", tmp_path / "set", window=20, stride=20, gap=12)
    assert wider.recording.tolist() == [0, 0, 0, 1, 2]
    assert wider.start.tolist() == [0, 20, 40, 0, 0]


def test_2011_is_not_downloaded_and_says_where_it_is(tmp_path, monkeypatch):
    said = (
        r"wisdm-2011 is not downloaded, as its licence is not stated.*get WISDM_ar_latest\.tar\.gz from "
        r"https://www\.cis\.fordham\.edu/wisdm/dataset\.php"
    )
    with pytest.raises(DataError, match=said):
        load_public("wisdm-2011", cache=tmp_path)
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"holds neither wisdm-2011/ nor WISDM_ar_latest\.tar\.gz nor"):
        load_public("wisdm-2011")
    _, files = old()
    tarred(tmp_path / "WISDM_ar_latest.tar.gz", files)
    assert len(load_public("wisdm-2011", window=20, stride=10).y) == 8
    (tmp_path / "WISDM_ar_latest.tar.gz").write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"WISDM_ar_latest\.tar\.gz is broken \(.*\); get WISDM_ar_latest"):
        load_public("wisdm-2011")


PERFORMED = [("A", 0), ("D", 10_000_000_000), ("S", 30_000_000_000)]


def new(skip=()):
    """WISDM 2019: each device has a clock of its own, and the gyroscope measures half a step later."""
    files = {"wisdm-dataset/README.txt": "", "wisdm-dataset/raw/phone/._accel": "litter"}
    for person in (1600, 1601):
        for device, origin in (("phone", 252207666810782), ("watch", 90426708196641)):
            for sensor, late in (("accel", 0), ("gyro", STEP // 2)):
                if (person, device, sensor) in skip:
                    continue
                lines = []
                for code, begin in PERFORMED:
                    for k, row in enumerate(performed(person, device, sensor, code)):
                        lines.append(record(person, code, origin + begin + late + k * STEP, row))
                files[f"wisdm-dataset/raw/{device}/{sensor}/data_{person}_{sensor}_{device}.txt"] = (
                    "\n".join(lines) + "\n"
                )
    return {"wisdm-dataset.zip": files}


def performed(person, device, sensor, code):
    return signal([person, len(device), len(sensor), ord(code), device == "phone"], 41, 3)


def expected(person, device, code):
    """From the second tick on, where both have begun: the gyroscope's middle of two."""
    gyro = performed(person, device, "gyro", code).astype(np.float32)
    middle = (gyro[:-1].astype(float) + gyro[1:]) / 2
    return np.concatenate([performed(person, device, "accel", code)[1:], middle], axis=1)


@pytest.mark.parametrize("form", FORMS)
def test_2019_has_both_sensors_on_one_clock(tmp_path, form):
    data = load_public("wisdm-2019", put(tmp_path, new(), form), window=20, stride=10)
    assert data.client_names == ("subject-1600", "subject-1601")
    assert [data.class_names[y] for y in np.unique(data.y)] == ["walking", "sitting", "folding"]
    x = [
        windows(expected(person, device, code), 20, 10)
        for person in (1600, 1601)
        for code, _ in PERFORMED
        for device in ("phone", "watch")
    ]
    assert np.allclose(data.x, np.concatenate(x), atol=1e-6)
    assert data.recording.tolist() == np.repeat(range(6), 6).tolist()  # a phone and a watch are one
    assert data.start.tolist() == [1, 11, 21] * 12


def test_2019_devices_are_chosen_or_clients(tmp_path):
    path = put(tmp_path, new(), "unpacked")
    watch = load_public(
        "wisdm-2019", path, window=20, stride=10, devices=["watch"], channels=["gyro_z", "acc_x"]
    )
    assert np.allclose(watch.x[0], expected(1600, "watch", "A")[:20, [5, 0]], atol=1e-6)
    each = load_public("wisdm-2019", path, window=20, stride=10, clients="devices")
    assert each.client_names == (
        *("subject-1600-phone", "subject-1600-watch", "subject-1601-phone", "subject-1601-watch"),
    )
    assert np.bincount(each.client).tolist() == [9] * 4
    with pytest.raises(SettingsError, match=r"data\.devices: wisdm-2019 has no 'wach'; did you mean 'watch'"):
        load_public("wisdm-2019", path, devices=["wach"])


def test_2019_a_hole_ends_a_stretch_and_a_lost_sensor_a_device(tmp_path):
    files = new(skip=[(1600, "watch", "gyro")])
    name = "wisdm-dataset/raw/phone/accel/data_1600_accel_phone.txt"
    lines = files["wisdm-dataset.zip"][name].splitlines()
    files["wisdm-dataset.zip"][name] = "\n".join([*lines[:20], "1600,A,2522", *lines[31:]])
    data = load_public("wisdm-2019", put(tmp_path, files, "unpacked"), window=10, stride=10, subjects=[1600])
    walk = data.y == 0
    assert data.start[walk].tolist() == [1, 31]
    assert np.allclose(data.x[walk][1], expected(1600, "phone", "A")[30:40], atol=1e-6)
    for note in (
        "lines that are no record, left out: 1",
        "people without a watch with both sensors: 1",
        "samples with missing values, left out: 11",
    ):
        assert note in data.notes


def test_2019_without_its_files_is_one_line(tmp_path):
    put(
        tmp_path, {"wisdm-dataset/arff_files/phone/accel/data_1600_accel_phone.arff": "@relation"}, "unpacked"
    )
    with pytest.raises(
        DataError, match=r"set holds no raw/phone/accel/data_1600_accel_phone\.txt; get wisdm-dataset\.zip"
    ):
        load_public("wisdm-2019", tmp_path / "set")
