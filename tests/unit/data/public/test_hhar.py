import numpy as np
import pytest

from fedali.data import load_public
from fedali.data.sources.public import hhar
from fedali.errors import DataError
from tests.unit.data.public.forms import FORMS, put, signal, windows

HEADER = "Index,Arrival_Time,Creation_Time,x,y,z,User,Model,Device,gt\n"
NOON = 1_424_696_640_000_000_000
STEP = 20_000_000  # ns, of 50 Hz
DEVICES = {  # model: rate, its clock's zero, gyroscope's delay [ns]
    "samsungold": (50, NOON - 27_920_000_000_000, 0),
    "nexus4": (200, 1_777_000_000, 0),
    "gear": (100, 0, 0),
}
LABELS = [("null", 10), ("stand", 41), ("null", 5), ("walk", 31)]
"""Activity and how many samples at 50 Hz."""


def moments(rate):
    """Times [ns] from noon on, with the activity of each."""
    label = np.repeat([name for name, _ in LABELS], [count * rate // 50 for _, count in LABELS])
    return np.arange(len(label)) * (1_000_000_000 // rate), label


def values(seed, rate):
    return signal(seed, len(moments(rate)[0]), 3)


def rows(person, model, number, sensor, later=0):
    rate, zero, delay = DEVICES[model]
    time, label = moments(rate)
    time = time + NOON + later + (delay if sensor == "gyroscope" else 0)
    x = values(seed_of(person, model, number, sensor), rate)
    return [
        f"{k},{t // 1_000_000},{t - zero},{v[0]:.3f},{v[1]:.3f},{v[2]:.3f},{person},{model},{model}_{number},{name}\n"
        for k, (t, name, v) in enumerate(zip(time.tolist(), label, x.tolist(), strict=True))
    ]


def seed_of(person, model, number, sensor):
    return [ord(person), len(model), number, len(sensor)]


HOLDERS = [("a", "samsungold", 1, 0), ("a", "nexus4", 2, 0), ("b", "samsungold", 1, 10**12)]
WEARERS = [("a", "gear", 1, 0), ("b", "gear", 1, 10**12)]


def files():
    found = {}
    for kind, people in (("Phones", HOLDERS), ("Watch", WEARERS)):
        for sensor in ("accelerometer", "gyroscope"):
            lines = [line for p, m, n, later in people for line in rows(p, m, n, sensor, later)]
            found[f"Activity recognition exp/{kind}_{sensor}.csv"] = HEADER + "".join(lines)
    return {"Activity recognition exp.zip": found, "Still exp.zip": {"Still exp/readme.txt": "still"}}


def expected(person, model, number):
    """Both sensors of each labelled stretch, every so manieth sample."""
    rate = DEVICES[model][0]
    both = np.concatenate(
        [values(seed_of(person, model, number, s), rate) for s in ("accelerometer", "gyroscope")], axis=1
    )
    label = moments(rate)[1]
    return [both[label == name][:: rate // 50] for name in ("stand", "walk")]


@pytest.mark.parametrize("form", FORMS)
def test_devices_of_several_rates_lie_on_one_clock(tmp_path, form):
    data = load_public("hhar", put(tmp_path, files(), form), window=20, stride=10)
    assert data.client_names == ("subject-a", "subject-b")
    assert [data.class_names[y] for y in np.unique(data.y)] == ["stand", "walk"]
    assert np.bincount(data.client).tolist() == [3 * (3 + 2), 2 * (3 + 2)]
    person = data.client == 0
    assert data.recording[person].tolist() == [0] * 9 + [1] * 6  # what was at the same time is one recording
    assert data.start[person].tolist() == [0, 10, 20] * 3 + [0, 10] * 3
    found = {tuple(window.ravel().round(3)) for window in data.x[person].astype(float)}
    for model, number in (("samsungold", 1), ("nexus4", 2), ("gear", 1)):
        for stretch in expected("a", model, number):
            assert {tuple(w.ravel().round(3)) for w in windows(stretch, 20, 10).astype(float)} <= found
    assert "samples without an activity (null), left out: 300" in data.notes


def test_devices_are_chosen_or_clients(tmp_path):
    path = put(tmp_path, files(), "unpacked")
    old = load_public("hhar", path, window=20, stride=10, devices=["samsungold"], subjects=["a"])
    x = [windows(stretch, 20, 10) for stretch in expected("a", "samsungold", 1)]
    assert np.allclose(old.x, np.concatenate(x), atol=1e-6)
    each = load_public("hhar", path, window=20, stride=10, clients="devices")
    assert each.client_names == (
        *("subject-a-nexus4", "subject-a-samsungold", "subject-a-gear", "subject-b-samsungold"),
        "subject-b-gear",
    )
    (path / "Activity recognition exp" / "Watch_gyroscope.csv").unlink()
    assert load_public("hhar", path, window=20, stride=10, devices=["nexus4"]).client_names == ("subject-a",)
    with pytest.raises(
        DataError, match=r"holds no Watch_gyroscope\.csv; get Activity recognition exp\.zip from"
    ):
        load_public("hhar", path)


def test_what_is_read_in_pieces_is_the_same(tmp_path, monkeypatch):
    path = put(tmp_path, files(), "as downloaded")
    whole = load_public("hhar", path, window=20, stride=10)
    monkeypatch.setattr(hhar, "_ROWS", 87)
    pieces = load_public("hhar", path, window=20, stride=10)
    assert np.array_equal(whole.x, pieces.x)
    assert np.array_equal(whole.start, pieces.start)


def test_samples_out_of_order_and_a_pause(tmp_path):
    found = files()
    for sensor in ("accelerometer", "gyroscope"):
        name = f"Activity recognition exp/Phones_{sensor}.csv"
        lines = rows("a", "samsungold", 1, sensor)
        lines[12], lines[13] = lines[13], lines[12]
        lines[30:41] = []  # of those of stand, which begins at 10
        found["Activity recognition exp.zip"][name] = HEADER + "".join(lines)
    data = load_public("hhar", put(tmp_path, found, "unpacked"), window=10, stride=10, devices=["samsungold"])
    stand, walk = expected("a", "samsungold", 1)
    x = [windows(part, 10, 10) for part in (stand[:20], stand[31:], walk)]
    assert np.allclose(data.x, np.concatenate(x), atol=1e-6)
    assert data.recording.tolist() == [0, 0, 1, 2, 2, 2]


def test_a_file_that_is_broken_is_one_line(tmp_path):
    name = "Activity recognition exp/Phones_gyroscope.csv"
    odd = files()
    inner = odd["Activity recognition exp.zip"]
    inner[name] = inner[name].replace("walk", "swim", 1)
    with pytest.raises(DataError, match=r"Phones_gyroscope\.csv: activity 'swim' is none of HHAR's"):
        load_public("hhar", put(tmp_path / "a", odd, "unpacked"))
    inner[name] = inner[name].replace("Creation_Time", "Time")
    with pytest.raises(DataError, match=r"Phones_gyroscope\.csv lacks the columns Creation_Time; get"):
        load_public("hhar", put(tmp_path / "b", odd, "unpacked"))
    short = files()
    text = short["Activity recognition exp.zip"][name]
    short["Activity recognition exp.zip"][name] = text[:-30]
    with pytest.raises(DataError, match=r"Phones_gyroscope\.csv is broken: invalid column index \d at row"):
        load_public("hhar", put(tmp_path / "c", short, "as downloaded"))
