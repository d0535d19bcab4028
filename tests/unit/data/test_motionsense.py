import io
import json
import math
import shutil
import zipfile

import numpy as np
import pytest

from fedali.data import load_motionsense
from fedali.data.sources.motionsense import ACTIVITIES, CHECKSUM, windows_checksum
from fedali.data.sources.motionsense_zip import read_signal
from fedali.errors import DataError, SettingsError

COLUMNS = [
    "",
    *("attitude.roll", "attitude.pitch", "attitude.yaw"),
    *(f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"),
]


@pytest.fixture(autouse=True)
def without_data_folder(monkeypatch):
    monkeypatch.delenv("FEDALI_DATA", raising=False)


@pytest.fixture(scope="module")
def arrays(shared_data):
    with np.load(shared_data / "motionsense.npz") as archive:
        return {name: archive[name] for name in archive.files}


def csv_of(signal):
    """A MotionSense CSV whose total acceleration and rotation rate are ``signal`` [t, 6] exactly."""
    lines = [",".join(COLUMNS)]
    for i, (ax, ay, az, gx, gy, gz) in enumerate(signal.astype(float).tolist()):
        lines.append(f"{i},0,0,0,0,0,0,{gx!r},{gy!r},{gz!r},{ax!r},{ay!r},{az!r}")
    return "\n".join(lines) + "\n"


def zip_of(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


def small_recordings():
    """Two people, two activities, and what their windows must be, cut by a plain loop."""
    rng = np.random.default_rng(1)
    signals = {
        ("dws", 1, 1): rng.normal(size=(300, 6)),
        ("sit", 5, 1): rng.normal(size=(128, 6)),
        ("sit", 13, 1): rng.normal(size=(256, 6)),  # the byte copy to leave out
        ("dws", 1, 2): rng.normal(size=(255, 6)),
        ("sit", 5, 2): rng.normal(size=(100, 6)),  # too short for a window
    }
    signals = {key: signal.astype(np.float16) for key, signal in signals.items()}
    x, y, subject, trial = [], [], [], []
    for (activity, number, person), signal in signals.items():
        if (activity, number, person) == ("sit", 13, 1):
            continue
        begin = 0
        while begin + 128 <= len(signal):
            x.append(signal[begin : begin + 128])
            y.append(ACTIVITIES.index(activity))
            subject.append(person)
            trial.append(number)
            begin += 64
    files = {f"top/A_DeviceMotion_data/{a}_{t}/sub_{s}.csv": csv_of(v) for (a, t, s), v in signals.items()}
    files["__MACOSX/top/dws_1/._sub_1.csv"] = "junk"
    files["__MACOSX/top/dws_1/sub_1.csv"] = "junk"
    files["top/.DS_Store"] = "junk"
    return files, (np.array(x), np.array(y), np.array(subject), np.array(trial))


def test_counts_are_those_of_the_data_notes(shared_data):
    data = load_motionsense(shared_data)
    known = json.loads((shared_data / "motionsense.json").read_text())
    assert data.x.shape == tuple(known["shape"])
    assert data.x.dtype == np.float16
    assert data.client_names == tuple(f"subject-{k}" for k in range(1, 25))
    assert data.counts().tolist() == [known["counts"][str(k)] for k in range(1, 25)]
    np.testing.assert_allclose(data.x.mean(axis=(0, 1), dtype=float), known["channel_mean"], atol=1e-3)
    assert len(np.unique(data.recording)) == 359  # 360 files, one left out


def test_recording_and_start_say_which_samples_are_shared(shared_data):
    data = load_motionsense(shared_data, subjects=[3])
    follows = (np.diff(data.recording) == 0) & (np.diff(data.start) == 64)
    assert follows.sum() == len(data.y) - len(np.unique(data.recording))
    rows = np.flatnonzero(follows)
    np.testing.assert_array_equal(data.x[rows, 64:], data.x[rows + 1, :64])


def test_the_checksum_is_that_of_the_shared_file(arrays):
    order = np.random.default_rng(0).permutation(len(arrays["x"]))
    assert windows_checksum(*(arrays[k][order] for k in ("x", "y", "subject", "trial"))) == CHECKSUM


def test_published_rows_decode_to_the_first_window(arrays):
    """The owner's README prints attitude and user acceleration of the first rows of dws_1/sub_1.csv.

    Gravity follows from attitude (Core Motion's angles), so that the sum can be held against our windows.
    """
    rows = [
        (1.528132, -0.733896, 0.294894, -0.184493, 0.377542),
        (1.527992, -0.716987, 0.219405, 0.035846, 0.114866),
        (1.527765, -0.706999, 0.010714, 0.134701, -0.167808),
        (1.516768, -0.704678, -0.008389, 0.136788, 0.094958),
        (1.493941, -0.703918, 0.199441, 0.353996, -0.044299),
    ]
    lines = [",".join(COLUMNS)]
    for i, (roll, pitch, ax, ay, az) in enumerate(rows):
        gravity = (math.cos(pitch) * math.sin(roll), -math.sin(pitch), -math.cos(pitch) * math.cos(roll))
        cells = [i, roll, pitch, 0, *(f"{g:.6f}" for g in gravity), 0, 0, 0, ax, ay, az]
        lines.append(",".join(map(str, cells)))
    decoded = read_signal("\n".join(lines).encode(), "sub_1.csv")
    first = np.flatnonzero((arrays["subject"] == 1) & (arrays["y"] == 0) & (arrays["trial"] == 1))[0]
    np.testing.assert_allclose(decoded[:, :3], arrays["x"][first, :5, :3], rtol=0, atol=5e-4)


def test_a_real_person_survives_csv_zip_and_cache(arrays, serve, tmp_path):
    """Rebuild subject 1's recordings from the windows, serve them zipped, and get the same windows back."""
    rows = arrays["subject"] == 1
    x, y, trial = arrays["x"][rows], arrays["y"][rows], arrays["trial"][rows]
    files = {}
    for activity, number in sorted(set(zip(y.tolist(), trial.tolist(), strict=True))):
        windows = x[(y == activity) & (trial == number)]
        signal = np.concatenate([windows[0], *(w[64:] for w in windows[1:])])
        files[f"A_DeviceMotion_data/{ACTIVITIES[activity]}_{number}/sub_1.csv"] = csv_of(signal)
    server = serve(zip_of(files))
    expected = windows_checksum(x, y, np.ones(len(y)), trial)
    data = load_motionsense(cache=tmp_path, url=server.url, checksum=expected)
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.y, y)


def test_download_decode_cache(serve, tmp_path):
    files, (x, y, subject, trial) = small_recordings()
    server = serve(zip_of(files), break_after=[1000])
    checksum = windows_checksum(x, y, subject, trial)
    data = load_motionsense(cache=tmp_path, url=server.url, checksum=checksum)
    assert len(data.y) == len(y) == 6
    assert windows_checksum(data.x, data.y, data.client + 1, data.recording % 100) == checksum
    assert data.client_names == ("subject-1", "subject-2")
    asked = len(server.asked)
    again = load_motionsense(cache=tmp_path, url=server.url, checksum=checksum)
    assert len(server.asked) == asked == 2
    np.testing.assert_array_equal(again.x, data.x)
    (tmp_path / "motionsense.npz").write_bytes(
        b"half a file"
    )  # a broken cache is made anew, from the kept zip
    again = load_motionsense(cache=tmp_path, url=server.url, checksum=checksum)
    np.testing.assert_array_equal(again.x, data.x)
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda files: {**files, "dws_2/sub_1.csv": csv_of(np.ones((128, 6)))},
            "other windows than the published",
        ),
        (lambda files: {**files, "x/dws_1/sub_1.csv": "a"}, "are the same recording"),
        (lambda files: {**files, "dws_2/sub_1.csv": "a,b\n1,2\n"}, "dws_2/sub_1.csv lacks the columns"),
        (lambda files: {**files, "dws_2/sub_1.csv": ",".join(COLUMNS) + "\n1,2,x\n"}, "no table of numbers"),
        (lambda files: {"readme.txt": "nothing"}, "holds no <activity>_<trial>"),
    ],
)
def test_a_zip_with_other_content_is_refused_and_removed(serve, tmp_path, spoil, message):
    files, known = small_recordings()
    server = serve(zip_of(spoil(files)))
    with pytest.raises(DataError, match=message) as caught:
        load_motionsense(cache=tmp_path, url=server.url, checksum=windows_checksum(*known))
    assert "\n" not in str(caught.value)
    assert "FEDALI_DATA" in str(caught.value)
    assert not list(tmp_path.glob("*.zip")) + list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize(
    "spoil",
    [lambda z: b"no zip at all", lambda z: z[: len(z) // 2], lambda z: z[:200] + b"\0" * 99 + z[299:]],
)
def test_corrupted_bytes_are_refused_and_removed(serve, tmp_path, spoil):
    files, known = small_recordings()
    server = serve(spoil(zip_of(files)))
    with pytest.raises(DataError, match="refused and removed"):
        load_motionsense(cache=tmp_path, url=server.url, checksum=windows_checksum(*known))
    assert not list(tmp_path.glob("*.zip"))


def test_names_that_climb_out_of_the_zip_write_nothing(serve, tmp_path):
    files, known = small_recordings()
    outside = tmp_path / "outside"
    files = {name.replace("top/", "../../outside/"): text for name, text in files.items()}
    files[f"{outside}/absolute.csv"] = "x"
    cache = tmp_path / "a" / "b" / "cache"
    load_motionsense(cache=cache, url=serve(zip_of(files)).url, checksum=windows_checksum(*known))
    assert not outside.exists()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        ".lock",
        "A_DeviceMotion_data.zip",
        "motionsense.npz",
    ]


def test_offline_says_what_to_do(tmp_path, serve):
    server = serve(b"", statuses=[404] * 9)
    with pytest.raises(DataError) as caught:
        load_motionsense(cache=tmp_path, url=server.url)
    message = str(caught.value)
    assert "\n" not in message
    assert "set FEDALI_DATA to a folder with motionsense.npz" in message
    assert str(tmp_path / "A_DeviceMotion_data.zip") in message
    files, known = small_recordings()
    (tmp_path / "A_DeviceMotion_data.zip").write_bytes(zip_of(files))  # as told
    assert len(load_motionsense(cache=tmp_path, url=server.url, checksum=windows_checksum(*known)).y) == 6
    assert len(server.asked) == 1


def test_the_zip_as_downloaded_may_lie_in_the_data_folder(tmp_path, monkeypatch):
    files, known = small_recordings()
    path = tmp_path / "A_DeviceMotion_data.zip"
    path.write_bytes(zip_of(files))
    found = [load_motionsense(place, checksum=windows_checksum(*known)) for place in (tmp_path, path)]
    assert [len(data.y) for data in found] == [6, 6]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"data\.zip: it decodes to other windows than the published ones; get it from"
    ):
        load_motionsense()


def test_the_data_folder_must_hold_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"motionsense\.npz does not exist; FEDALI_DATA"):
        load_motionsense()
    path = tmp_path / "motionsense.npz"
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="is broken and cannot be read"):
        load_motionsense()
    np.savez(path, x=np.zeros(3))
    with pytest.raises(DataError, match="lacks the arrays y, subject, trial"):
        load_motionsense()
    good = {
        "activity_names": np.array(ACTIVITIES),
        "y": np.zeros(3, int),
        "subject": np.ones(3, int),
        "trial": np.ones(3, int),
    }
    good["channel_names"] = np.array(["acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z"])
    np.savez(path, x=np.zeros((3, 64, 6), np.float16), **good)
    with pytest.raises(DataError, match=r"x is float16 \[3, 64, 6\]"):
        load_motionsense()
    np.savez(path, x=np.zeros((3, 128, 6), np.float16), **{**good, "y": np.zeros(2, int)})
    with pytest.raises(DataError, match="y must hold one integer"):
        load_motionsense()
    np.savez(path, x=np.zeros((3, 128, 6), np.float16), **{**good, "trial": np.array([{}, 1, 2], object)})
    with pytest.raises(DataError, match="holds Python objects"):
        load_motionsense()


def test_shuffled_windows_are_refused(shared_data, arrays, tmp_path):
    order = np.random.default_rng(0).permutation(300)
    kept = {k: v[order] if len(v) == len(arrays["x"]) else v for k, v in arrays.items()}
    np.savez(tmp_path / "motionsense.npz", **kept)
    with pytest.raises(DataError, match="keep each recording in time order"):
        load_motionsense(tmp_path)


def test_subsets_are_seeded_per_person(shared_data, tmp_path, monkeypatch):
    shutil.copy(shared_data / "motionsense.npz", tmp_path)
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path))
    two = load_motionsense(subjects=[5, 2], windows_per_client=40, seed=7)
    assert two.client_names == ("subject-2", "subject-5")
    assert np.bincount(two.client).tolist() == [40, 40]
    one = load_motionsense(subjects=[5], windows_per_client=40, seed=7)
    np.testing.assert_array_equal(one.x, two.x[two.client == 1])
    other = load_motionsense(subjects=[5], windows_per_client=40, seed=8)
    assert not np.array_equal(other.start, one.start)
    with pytest.raises(SettingsError, match=r"no such MotionSense subjects: 25; choose from 1\.\.24"):
        load_motionsense(subjects=[1, 25])
    with pytest.raises(SettingsError, match="windows_per_client"):
        load_motionsense(windows_per_client=0)
