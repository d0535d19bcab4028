import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError
from tests.unit.data.public.forms import put, signal, windows

HEADER = "id,attr_time,attr_x,attr_y,attr_z\n"
NOON = 1_435_993_080_000  # ms, a multiple of 20


def csv(seed, rows=41, begin=0, step=20, drop=()):
    lines = [
        f"{k + 1},{NOON + begin + step * k},{v[0]:.3f},{v[1]:.3f},{v[2]:.3f}\n"
        for k, v in enumerate(signal(seed, rows, 3).tolist())
        if k not in drop
    ]
    return HEADER + "".join(lines)


def pair(activity, seed, places=("chest", "waist"), part="", **form):
    """The two zips of an activity."""
    return {
        f"{zipped}_{activity}_csv.zip": {
            **{
                f"{sensor}_{activity}{part}_{place}.csv": csv([seed, number, len(sensor)], **form)
                for number, place in enumerate(places)
            },
            "readMe": "Sztyler",
        }
        for zipped, sensor in (("acc", "acc"), ("gyr", "Gyroscope"))
    }


def both(seed, number):
    return np.concatenate([signal([seed, number, len(s)], 41, 3) for s in ("acc", "Gyroscope")], axis=1)


def files():
    found = {f"proband1/data/{name}": f for name, f in pair("walking", 1).items()}
    found |= {f"proband1/data/{name}": f for name, f in pair("sitting", 2, part="_2").items()}
    found["proband1/data/mag_walking_csv.zip"] = {"MagneticField_walking_chest.csv": csv(9)}
    found["proband1/videos/video.mp4"] = b""
    first, second = pair("climbingup", 3), pair("climbingup", 4, part="_2", begin=60_000)
    for kind, own in (("acc", "acc_climbingup_1_csv.zip"), ("gyr", "gyr_climbingup_csv.zip")):
        name = f"{kind}_climbingup_csv.zip"
        found[f"proband14/data/{name}"] = {own: first[name], f"{kind}_climbingup_2_csv.zip": second[name]}
    return found


@pytest.mark.parametrize("form", ["as downloaded", "outer unpacked"])
def test_activities_at_places_parts_and_zips_within_zips(tmp_path, form):
    data = load_public("realworld", put(tmp_path, files(), form), window=20, stride=10)
    assert data.client_names == ("subject-1", "subject-14")
    x = [windows(both(seed, number), 20, 10) for seed in (2, 1, 3, 4) for number in (0, 1)]
    assert np.array_equal(data.x, np.concatenate(x))
    names = [data.class_names[y] for y in data.y]
    assert names == ["sitting"] * 6 + ["walking"] * 6 + ["climbingup"] * 12
    assert data.recording.tolist() == np.repeat([0, 1, 2, 3], 6).tolist()
    assert (data.start - data.start[0]).tolist()[:12] == [0, 10, 20] * 4
    assert data.start[18] - data.start[12] == 3000


def test_what_is_unpacked_beside_its_zip_is_read_once(tmp_path):
    path = put(tmp_path, files(), "outer unpacked")
    folder = path / "proband1" / "data" / "acc_walking_csv"
    folder.mkdir()
    (folder / "acc_walking_chest.csv").write_text(csv([7, 0, 3]))
    data = load_public("realworld", path, window=20, stride=10, subjects=[1], devices=["chest"])
    assert len(data.y) == 6
    assert np.array_equal(data.x[3:, :, :3], windows(signal([7, 0, 3], 41, 3), 20, 10))


def test_times_of_their_own_a_pause_and_a_lost_sensor(tmp_path):
    walking = pair("walking", 1)
    walking["acc_walking_csv.zip"]["acc_walking_chest.csv"] = csv([1, 0, 3], begin=-5, drop=range(20, 31))
    del walking["gyr_walking_csv.zip"]["Gyroscope_walking_waist.csv"]
    found = {f"proband1/data/{name}": f for name, f in (walking | pair("lying", 5)).items()}
    path = put(tmp_path, found, "as downloaded")
    data = load_public("realworld", path, window=8, stride=8, clients="devices")
    walk = (data.y == data.class_names.index("walking")) & (data.client == 0)
    assert data.client_names == ("subject-1-chest", "subject-1-waist")
    acc = signal([1, 0, 3], 41, 3)
    between = (0.75 * acc[:-1] + 0.25 * acc[1:])[:8]  # ticks lie 5 of 20 ms after a sample
    assert np.allclose(data.x[walk][0, :, :3], between, atol=1e-6)
    assert np.allclose(data.x[walk][0, :, 3:], both(1, 0)[:8, 3:], atol=1e-6)
    starts = data.start[walk] - data.start[walk][0]
    assert starts.tolist() == [0, 8, 31]
    assert "recordings without accelerometer or gyroscope, left out: 1" in data.notes


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    with pytest.raises(
        DataError,
        match=r"holds no proband1/data/acc_walking_csv\.zip; get realworld2016_dataset\.zip from https",
    ):
        load_public("realworld", put(tmp_path / "a", {"readme.txt": ""}, "as downloaded"))
    odd = files()
    odd["proband1/data/acc_walking_csv.zip"]["acc_walking_chest.csv"] = HEADER + "1,14359,x,1,2\n"
    with pytest.raises(
        DataError,
        match=r"proband1/data/acc_walking_csv\.zip/acc_walking_chest\.csv is broken: could not convert",
    ):
        load_public("realworld", put(tmp_path / "b", odd, "as downloaded"))
    path = put(tmp_path / "c", files(), "outer unpacked")
    (path / "proband1" / "data" / "gyr_walking_csv.zip").write_bytes(b"half")
    with pytest.raises(
        DataError, match=r"proband1/data/gyr_walking_csv\.zip is broken \(File is not a zip file\)"
    ):
        load_public("realworld", path)
    with pytest.raises(DataError, match=r"realworld is not downloaded, as its licence is not stated"):
        load_public("realworld", cache=tmp_path)
