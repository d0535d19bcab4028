"""What people's files hold by accident: refused in one line that helps, or said in a note; never trained on without a word."""

import unicodedata
from datetime import datetime, timedelta

import numpy as np
import pytest

from fedali.data import load_own
from fedali.data.sources.reading import Columns, Reading
from fedali.errors import DataError

HEAD = ("client", "label", "time", "x", "y")
NOISE = np.random.default_rng(0).normal(size=(160, 2)).round(3).tolist()
ROWS = [
    (client, label, round(0.02 * (i + 40 * k), 2), *NOISE[80 * (client == "bob") + 40 * k + i])
    for client in ("ann", "bob")
    for k, label in enumerate(("sit", "walk"))
    for i in range(40)
]


def text(rows=ROWS, head=HEAD, separator=","):
    return "".join(separator.join(map(str, row)) + "\n" for row in (head, *rows))


def load(folder, content, **reading):
    (folder / "log.csv").write_text(content, encoding="utf-8")
    return load_own(folder / "log.csv", window=8, stride=4, reading=Reading(**reading))


def changed(place, change):
    """The rows with one of their cells changed by its row's number and the cell."""
    return [(*row[:place], change(i, row[place]), *row[place + 1 :]) for i, row in enumerate(ROWS)]


def clock(form, begin=datetime(2023, 11, 14, 23, 59, 59)):
    return changed(2, lambda i, t: (begin + timedelta(seconds=t)).strftime(form))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text().replace("sit,0.02", "sit\0,0.02"), "line 3 holds zero bytes"),
        (text(changed(0, lambda i, c: "NaN" if i < 80 else c)), "line 2: client is 'NaN', which may stand for no client"),
        (text(changed(0, lambda i, c: "-1" if i < 80 else c)), "line 2: client is '-1', which may stand for no client"),
        (text(changed(0, lambda i, c: "1.23E+15" if i < 80 else c)), "'1.23E[+]15', a number whose last digits"),
        (text(changed(1, lambda i, label: "None" if i < 20 else label)), r"label is 'None'.*data\.unlabelled = \[\"None\"\]"),
        (text(changed(1, lambda i, label: "unlabelled" if i < 20 else label)), r"data\.unlabelled = \[\"unlabelled\"\]"),
        (text(changed(2, lambda i, t: t if i else "2023-11-14")), "line 3: column 'time' is a number, and a date in"),
        (text(changed(3, lambda i, x: 1e39 if i == 5 else x)), "line 7: column 'x' is 1e[+]39, too large for single precision"),
        (text(changed(3, lambda i, x: f'"{1000 + i},{100 + i}.5"')), "'1000,100.5'.*write plain ones"),
        (text(changed(3, lambda i, x: f'"1,{100 + i}.5"')), "column 'x' holds no numbers.*without a sign between thousands"),
        (text(clock("%Y%m%d%H%M%S.%f")), r'data\.time_format = "%Y%m%d%H%M%S\.%f"'),
        (text(clock("%Y%m%d%H%M%S")), r'data\.time_format = "%Y%m%d%H%M%S"'),
        (text([(i, *row) for i, row in enumerate(ROWS)]), "line 2: 6 cells where the header has 5.*row.names = FALSE"),
        (text([*ROWS[:80], *ROWS[:80]]), "it goes back; sort the rows, or .*data.columns.recording names the column"),
        (text([(*row[:3], s, v) for row in ROWS for s, v in zip("abc", (*row[3:], 1), strict=True)]), "pivot the table"),
        (text([(*row, 900 - i) for i, row in enumerate(ROWS)], (*HEAD, "left")), "column 'left' counts down by one"),
        (text([(*row, 900 - i / 8) for i, row in enumerate(ROWS)], (*HEAD, "left")), "column 'left' only falls"),
    ],
)  # fmt: skip
def test_what_may_be_an_accident_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (text(changed(1, lambda i, label: "Sit" if 80 <= i < 120 else label)), "classes 'Sit' and 'sit' differ in case"),
        (
            text(changed(1, lambda i, label: unicodedata.normalize("NFD" if i < 80 else "NFC", "é" + label))),
            r"classes 'e\u0301sit' and '\xe9sit', 'e\u0301walk' and '\xe9walk' differ in case",
        ),
        (text(changed(0, lambda i, c: "007" if c == "ann" else "7")), "clients '007' and '7' differ"),
        (text(changed(2, lambda i, t: 5)), "time never moves in 2 of 2 recordings"),
        (text(changed(2, lambda i, t: t * (1 + (i >= 80)))), "recordings have other rates, 25 to 50 rows in a unit of 'time'"),
        (text([row for row in ROWS for _ in range(2)]), "160 of 320 rows have the time and the values of the row before"),
        (text([(*row, 31.5 + (row[0] == "bob")) for row in ROWS], (*HEAD, "age")), "column 'age' is a channel, and rarely changes"),
        (
            text([(*row, 48.137154 + 1e-7 * (i % 9)) for i, row in enumerate(ROWS)], (*HEAD, "lat")),
            "channel 'lat' changes by 8e-07 at 48.1372, which single precision loses",
        ),
    ],
)  # fmt: skip
def test_what_is_likely_an_accident_is_said(tmp_path, content, note):
    assert any(found.startswith(note) for found in load(tmp_path, content).notes)


def test_dates_beside_times_of_day(tmp_path):
    days = [
        (f"2023-11-{15 - i // 80}", *row) for i, row in enumerate(clock("%H:%M:%S.%f", datetime(2023, 1, 1)))
    ]
    with pytest.raises(
        DataError, match="column 'date' has the dates of the times of day in 'time'; join the two"
    ):
        load(tmp_path, text(days, ("date", *HEAD)), time_format="%H:%M:%S.%f")
    named = load(
        tmp_path, text(days, ("date", *HEAD)), time_format="%H:%M:%S.%f", columns=Columns(channels=("x", "y"))
    )
    assert np.array_equal(named.x, load(tmp_path, text()).x)


def test_a_beginning_and_a_rate_are_no_rows(tmp_path):
    (tmp_path / "all").mkdir()
    for k, name in enumerate(("ann", "bob")):
        rows = [row[1:2] + row[3:] for row in ROWS[80 * k : 80 * k + 80]]
        (tmp_path / "all" / f"{name}.csv").write_text(
            text([("sit", 32.0, 32.0), *rows], ("sit", 1.7e9, 1.7e9))
        )
    reading = Reading(header=("label", "x", "y"))
    with pytest.raises(DataError, match=r"first two lines have one number each \(1700000000 and 32\)"):
        load_own(tmp_path / "all", window=8, stride=4, reading=reading)


def test_advice_names_no_other_clock(tmp_path):
    stamps = [(1700000000 + int(row[2]), int(row[2] % 1 * 1e9), i, *row) for i, row in enumerate(ROWS)]
    head = ("stamp.secs", "stamp.nsecs", "seq", *HEAD[:2], "t", *HEAD[3:])
    with pytest.raises(
        DataError, match=r"column 'stamp.secs' is a clock, no channel; .*channels = \[\"x\", \"y\"\]$"
    ):
        load(tmp_path, text(stamps, head))
    with pytest.raises(DataError, match=r"column 1 is a clock, no channel; name it, such as time, or leave"):
        load(
            tmp_path,
            text(
                [(row[2], *row[:2], *row[3:]) for row in clock("%Y-%m-%d %H:%M:%S.%f")],
                ("", *HEAD[:2], "x", "y"),
            ),
        )


def test_a_separator_that_is_proposed_reads_the_file(tmp_path):
    quoted = text(
        [(f'"{row[0]}"', f'"{row[1]}"', *row[2:]) for row in ROWS], [f'"{name}"' for name in HEAD], " "
    )
    with pytest.raises(DataError, match=r'data\.separator = " "$'):
        load(tmp_path, quoted)
    assert np.array_equal(load(tmp_path, quoted, separator=" ").x, load(tmp_path, text()).x)


def test_whole_numbers_as_numpy_writes_them(tmp_path):
    rows = [(f"{1 + (row[0] == 'bob'):.18e}", f"{int(row[1] == 'walk'):.18e}", *row[2:]) for row in ROWS]
    data = load(tmp_path, text(rows))
    assert (data.client_names, data.class_names) == (("1", "2"), ("0", "1"))
    assert np.array_equal(data.x, load(tmp_path, text()).x)


def test_a_copied_file_is_no_other_client_without_a_word(tmp_path):
    (tmp_path / "all").mkdir()
    for name, rows in (("ann", ROWS[:80]), ("ann (1)", ROWS[:80]), ("bob", ROWS[80:])):
        (tmp_path / "all" / f"{name}.csv").write_text(text([row[1:] for row in rows], HEAD[1:]))
    assert load_own(tmp_path / "all", window=8, stride=4).notes == (
        "18 of 54 samples are there twice, bit for bit, as of 'ann (1)' and of 'ann': was something copied?",
    )


def test_a_file_is_a_client_by_its_whole_name(tmp_path):
    (tmp_path / "all").mkdir()
    for name, rows in (("ann", ROWS[:80]), ("ann ", ROWS[80:])):
        (tmp_path / "all" / f"{name}.csv").write_text(text([row[1:] for row in rows], HEAD[1:]))
    data = load_own(tmp_path / "all", window=8, stride=4)
    assert set(data.client_names) == {"ann", "ann "}
    assert data.notes[0].startswith("clients 'ann ' and 'ann' differ in case, spaces")


def test_windows_lost_to_missing_values_are_said_where_a_client_has_none(tmp_path):
    with pytest.raises(
        DataError, match=r"client 'ann' has 0 whole windows.*they hold one of 80 missing values"
    ):
        load(tmp_path, text(changed(3, lambda i, x: "" if i < 80 else x)), missing=("",))


def arrays(**changes):
    x = np.random.default_rng(0).normal(size=(24, 4))
    return {"x": x, "y": np.arange(24) % 2, "client": np.arange(24) // 8, **changes}


def test_npz_of_bytes_is_text(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        **arrays(
            client=np.array([b"a", b"b ", b"c"])[np.arange(24) // 8],
            class_names=np.array([b"sit", "höher".encode()]),
            channel_names=np.array([b"x", b"y", b"z", b"w"]),
        ),
    )
    data = load_own(tmp_path / "a.npz")
    assert (data.client_names, data.class_names, data.channel_names) == (
        ("a", "b", "c"),
        ("sit", "höher"),
        ("x", "y", "z", "w"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": np.arange(24) // 8 - 1}, "client of row 0 is -1, which may stand for no client"),
        (
            {"client": np.array(["a", "nan", "c"])[np.arange(24) // 8]},
            "client of row 8 is 'nan', which may stand",
        ),
        (
            {"y": np.eye(2)[np.arange(24) % 2] * (np.arange(24) != 3)[:, None]},
            "row 3 has not one 1 and else 0",
        ),
        ({"y": np.full((24, 2), 0.5)}, "row 0 has not one 1 and else 0"),
        ({"x": np.full((24, 4), np.float16(np.inf))}, "NaN or infinite"),
        ({"class_names": np.array([b"\xff", b"a"])}, "class_names is bytes that are no UTF-8 text"),
    ],
)
def test_npz_that_may_be_an_accident_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message):
        load_own(tmp_path / "a.npz")


def test_labels_of_two_files_that_have_nothing_in_common(tmp_path):
    for name, y in (("a", np.arange(24) % 2), ("b", np.array(["sit", "walk"])[np.arange(24) % 2])):
        np.savez(tmp_path / f"{name}.npz", x=np.random.default_rng(len(name)).normal(size=(24, 4)), y=y)
    with pytest.raises(
        DataError, match=r"a\.npz has whole numbers for labels, and .*b\.npz has names; make them the same"
    ):
        load_own(tmp_path)
