import numpy as np
import pytest

from fedali.data import load_own
from fedali.errors import DataError, SettingsError


def rows_of(client, label, count, *, recording="r", begin=0):
    return [f"{client},{label},{recording},{begin + i},{begin + i}.5,{-i}" for i in range(count)]


def write_csv(path, rows, header="client,label,recording,time,acc,gyr"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def good_arrays(**changes):
    arrays = {
        "x": np.random.default_rng(0).normal(size=(8, 16, 3)),
        "y": np.array(["walk", "rest"] * 4),
        "client": np.array([3] * 4 + [9] * 4),
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_with_names_and_integers(tmp_path):
    data = load_own(save(tmp_path / "mine.npz", **good_arrays()))
    assert data.name == "mine"
    assert data.client_names == ("client-3", "client-9")
    assert data.class_names == ("rest", "walk")
    assert data.y.tolist() == [1, 0] * 4
    assert data.x.dtype == np.float32
    assert data.length == 0
    assert data.channel_names == ("channel-1", "channel-2", "channel-3")


def test_npz_with_everything(tmp_path):
    arrays = good_arrays(
        y=np.array([5, 7] * 4),
        client=np.array(["ada"] * 4 + ["bob"] * 4),
        recording=np.repeat([4, 2], 4),
        start=np.tile([0, 8, 16, 24], 2),
        channel_names=np.array(["x", "y", "z"]),
        x=np.zeros((8, 16, 3), ">f2"),
    )
    data = load_own(save(tmp_path / "mine.npz", **arrays))
    assert data.class_names == ("5", "7")
    assert data.y.tolist() == [0, 1] * 4
    assert data.length == 16
    assert data.recording.tolist() == [4] * 4 + [2] * 4
    assert data.x.dtype == np.dtype("float16")
    assert data.x.dtype.isnative
    named = load_own(
        save(
            tmp_path / "named.npz",
            **{**arrays, "y": np.array([0, 2] * 4), "class_names": np.array(["a", "b", "c"])},
        )
    )
    assert named.class_names == ("a", "b", "c")
    assert named.y.tolist() == [0, 2] * 4


def test_csv_windows_are_those_of_a_plain_loop(tmp_path):
    rows = [
        *rows_of("ada", "walk", 10),
        *rows_of("ada", "rest", 7, begin=10),
        *rows_of("ada", "rest", 3, recording="s"),
        *rows_of("bob", "walk", 10),
    ]
    data = load_own(write_csv(tmp_path / "log.csv", rows), window=4, stride=3)
    stretches = [("ada", "walk", 0, 0, 10), ("ada", "rest", 10, 10, 17), ("bob", "walk", 0, 20, 30)]
    expected = []
    for client, label, offset, begin, end in stretches:
        at = begin
        while at + 4 <= end:
            values = [[float(cell) for cell in row.split(",")[4:]] for row in rows[at : at + 4]]
            expected.append((client, label, offset + at - begin, values))
            at += 3
    assert [data.client_names[k] for k in data.client] == [e[0] for e in expected]
    assert [data.class_names[k] for k in data.y] == [e[1] for e in expected]
    assert data.start.tolist() == [e[2] for e in expected]
    np.testing.assert_array_equal(data.x, np.array([e[3] for e in expected], np.float32))
    assert data.channel_names == ("acc", "gyr")
    assert data.length == 4
    assert (
        len(set(data.recording[data.client == 0])) == 1
    )  # walk and rest are one recording, s gave no window


def test_folder_of_csv_puts_channels_in_one_order(tmp_path):
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden").write_text("x")
    write_csv(tmp_path / "ada.csv", [f"{i // 8},{i},{-i}" for i in range(16)], "label,a,b")
    write_csv(tmp_path / "bob.csv", [f"{i // 8},{-i},{i}" for i in range(16)], "label,b,a")
    data = load_own(tmp_path, window=4, stride=2)
    assert data.client_names == ("ada", "bob")
    assert data.class_names == ("0", "1")
    half = len(data.y) // 2
    np.testing.assert_array_equal(data.x[:half], data.x[half:])
    assert not set(data.recording[:half]) & set(data.recording[half:])


def test_folder_of_npz(tmp_path):
    for name in ("ada", "bob"):
        save(tmp_path / f"{name}.npz", x=np.zeros((4, 5), np.float32), y=np.array([1, 2, 1, 2]))
    data = load_own(tmp_path)
    assert data.counts().tolist() == [[2, 2], [2, 2]]
    assert data.sample_shape == (5,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": None}, "lacks the array 'client'"),
        ({"y": None, "labels": np.zeros(8, int)}, "lacks the array 'y'; known: labels"),
        ({"y": None, "yy": np.zeros(8, int)}, "did you mean 'yy'"),
        ({"y": np.linspace(0, 1, 8)}, "labels y are float64; make them integers or strings"),
        ({"y": np.array(["walk"] * 8)}, "all samples have the label 'walk'"),
        ({"y": np.array([0, 1] * 3)}, r"x has 8 samples but y has shape \[6\]"),
        ({"client": np.linspace(0, 1, 8)}, "client is float64"),
        ({"client": np.array(["ada"] * 7 + [""])}, "client of row 7 is empty"),
        (
            {"client": np.array([1] * 7 + [2])},
            "client 'client-2' has 1 samples, fewer than 3",
        ),
        ({"x": np.full((8, 16, 3), np.nan)}, "384 values that are NaN or infinite, first in row 0"),
        ({"x": np.zeros((0, 16, 3)), "y": np.zeros(0, int), "client": np.zeros(0, int)}, "holds no samples"),
        ({"x": np.zeros(8)}, r"x has shape \[8\]"),
        ({"x": np.array(["a"] * 8)}, "x is <U1; make it numbers"),
        ({"x": np.array([{}] * 8, object)}, "array 'x' holds Python objects"),
        ({"x": np.full((8, 2), 1e300)}, "NaN or infinite"),
        ({"recording": np.zeros(8, int)}, "one of recording and start"),
        ({"recording": np.zeros(8), "start": np.zeros(8, int)}, "recording is float64"),
        ({"class_names": np.array(["run", "walk"])}, "label 'rest' is not in class_names"),
        (
            {"class_names": np.array(["run", "walk"]), "y": np.array([0, 2] * 4)},
            r"labels must be 0\.\.1; row 1 has 2",
        ),
        ({"channel_names": np.array(["a", "b"])}, "3 channels but there are 2 channel_names"),
    ],
)
def test_npz_that_is_wrong(tmp_path, changes, message):
    path = save(tmp_path / "mine.npz", **good_arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        load_own(path)
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value)


GOOD = [*rows_of("ada", "walk", 12), *rows_of("ada", "rest", 12, begin=12)]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([*GOOD, "ada,rest,r,99,,1"], None, "line 26: column 'acc' is empty, not a finite number"),
        ([*GOOD, "ada,rest,r,99,nan,1"], None, "line 26: column 'acc' is 'nan'"),
        ([*GOOD, "ada,rest,r,99,1"], None, "line 26: 5 cells where the header has 6"),
        ([*GOOD, "ada,1.5,r,99,1,1"], None, "line 26: label '1.5' is neither a whole number nor a name"),
        ([*GOOD, "ada,,r,99,1,1"], None, "line 26: label is empty"),
        ([*GOOD, ",rest,r,99,1,1"], None, "line 26: client is empty"),
        ([*GOOD, "ada,rest,r,5,1,1"], None, "line 26: time does not increase"),
        ([*GOOD, "ada,rest,r,noon,1,1"], None, "column 'time' is 'noon'"),
        (
            [*GOOD, *rows_of("bob", "rest", 3)],
            None,
            "client 'bob' has 0 whole windows.*4 rows in a row.*longest stretch has 3, into which data.window = 3",
        ),
        (rows_of("ada", "walk", 12), None, "all samples have the label 'walk'"),
        ([], None, "has no rows"),
        (GOOD, "client,lable,recording,time,acc,gyr", "lacks the column 'label' .*; did you mean 'lable'"),
        (GOOD, "client,label,recording,time,acc,acc", "column 'acc' appears twice"),
        (["a,b"], "client,label", "has no channels"),
        ([], "", "is empty; its first line"),
    ],
)
def test_csv_that_is_wrong(tmp_path, rows, header, message):
    path = write_csv(tmp_path / "log.csv", rows, *([] if header is None else [header]))
    with pytest.raises(DataError, match=message) as caught:
        load_own(path, window=4, stride=2)
    assert "\n" not in str(caught.value)
    assert "log.csv" in str(caught.value)


def test_times_may_be_iso(tmp_path):
    rows = [f"ada,{i // 8},2024-05-01T10:00:{i:02},{i}" for i in range(16)]
    assert (
        len(load_own(write_csv(tmp_path / "log.csv", rows, "client,label,time,a"), window=4, stride=4).y) == 4
    )


def test_paths_that_are_wrong(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_own(tmp_path / "nothing.csv")
    (tmp_path / "a.cvs").write_text("x")
    with pytest.raises(DataError, match=r"unknown ending '\.cvs'; did you mean '\.csv'"):
        load_own(tmp_path / "a.cvs")
    with pytest.raises(DataError, match=r"unknown ending '\.cvs'"):
        load_own(tmp_path)
    (tmp_path / "a.cvs").unlink()
    with pytest.raises(DataError, match=r"holds no \.npz or .csv files"):
        load_own(tmp_path)
    (tmp_path / "b.npz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_own(tmp_path / "b.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_own(tmp_path / "one.npz")
    (tmp_path / "c.csv").write_bytes(b"client,label,a\n\xff\xfe,1,2\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_own(tmp_path / "c.csv")
    for bad in (0, 2.5):
        with pytest.raises(SettingsError, match="window must be a whole number"):
            load_own(tmp_path, window=bad)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("label,a,c", "1,2,3"), "has other channels than .*: b, c"),
        (("label,a", "1,2"), "other channels"),
        (("client,label,a,b", "x,1,2,3"), "the file's name is the client; remove the column"),
    ],
)
def test_folder_files_that_do_not_go_together(tmp_path, second, message):
    write_csv(tmp_path / "ada.csv", [f"{i // 8},{i},{i}" for i in range(16)], "label,a,b")
    write_csv(tmp_path / "bob.csv", [second[1]] * 16, second[0])
    with pytest.raises(DataError, match=message):
        load_own(tmp_path, window=4, stride=2)


def test_folder_npz_that_do_not_go_together(tmp_path):
    y = np.array([0, 1, 0, 1])
    save(tmp_path / "ada.npz", x=np.zeros((4, 5), np.float32), y=y)
    save(tmp_path / "bob.npz", x=np.zeros((4, 6), np.float32), y=y)
    with pytest.raises(DataError, match=r"bob\.npz has samples float32 \[6\].*make them the same"):
        load_own(tmp_path)
    save(tmp_path / "bob.npz", x=np.zeros((4, 5), np.float32), y=y, client=y)
    with pytest.raises(DataError, match="leave the array out"):
        load_own(tmp_path)
    save(tmp_path / "bob.npz", x=np.zeros((4, 5), np.float32), y=y)
    write_csv(tmp_path / "bob.csv", ["1,2"], "label,a")
    with pytest.raises(DataError, match="client 'bob' has two files"):
        load_own(tmp_path)
