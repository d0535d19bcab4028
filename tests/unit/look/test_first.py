"""A first look at what is refused: what its columns hold, and a guess that reads it as the clean file is read."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fedali.data import Columns, Reading, load_own
from fedali.data.look.first import first_look, refused_file, with_guess
from fedali.errors import DataError
from tests.unit.look.logs import HEAD, renamed, rows, write


def guessed(path, client=None, **reading):
    return first_look(path, client, Reading(**reading), 64, 32)


def read(path, look, **reading):
    return load_own(path, window=64, stride=32, reading=with_guess(Reading(**reading), look.guess))


@pytest.fixture
def plain(tmp_path):
    return load_own(write(tmp_path / "plain.csv", rows()), window=64, stride=32)


def same(one, other):
    fields = ("x", "y", "client", "start")
    return one.class_names == other.class_names and all(
        np.array_equal(getattr(one, field), getattr(other, field)) for field in fields
    )


def dates(form):
    return [(*row[:3], form.format(s=float(row[3])), *row[4:]) for row in rows()]


OWN = renamed(rows())
CASES = {
    "names": (
        *OWN,
        ",",
        "utf-8",
        {"columns": {"client": "user", "label": "activity", "time": "seconds_elapsed"}},
    ),
    "encoding": (
        [(c, label.replace("walk", "wälk"), *rest) for c, label, *rest in rows()],
        HEAD,
        ",",
        "cp1252",
        {"encoding": "cp1252"},
    ),
    "utf-16": (rows(), HEAD, ",", "utf-16-le", {"encoding": "utf-16-le"}),
    "spaces": (rows(), HEAD, " ", "utf-8", {"separator": " "}),
    "dates": (
        dates("31/03/2024 01:59:{s:09.6f}"),
        HEAD,
        ",",
        "utf-8",
        {"time_format": "%d/%m/%Y %H:%M:%S.%f"},
    ),
    "months": (
        dates("03/31/2024 01:59:{s:09.6f}"),
        HEAD,
        ",",
        "utf-8",
        {"time_format": "%m/%d/%Y %H:%M:%S.%f"},
    ),
    "halves of days": (
        dates("03/31/2024 01:59:{s:09.6f} PM"),
        HEAD,
        ",",
        "utf-8",
        {"time_format": "%m/%d/%Y %I:%M:%S.%f %p"},
    ),
    "counter": (
        [(*row, 7 * i) for i, row in enumerate(rows())],
        (*HEAD, "steps"),
        ",",
        "utf-8",
        {"columns": {"channels": ["x", "y", "z"]}},
    ),
    "clock": (
        [(row[0], row[1], row[2], *row[4:], row[3]) for row in rows()],
        (*HEAD[:3], *HEAD[4:], "timestamp"),
        ",",
        "utf-8",
        {"columns": {"time": "timestamp"}},
    ),
    "second person": (
        [(*renamed([row])[0][0], int(row[0][1])) for row in rows()],
        (*OWN[1], "subject"),
        ",",
        "utf-8",
        {
            "columns": {
                "client": "user",
                "label": "activity",
                "time": "seconds_elapsed",
                "channels": ["x", "y", "z"],
            }
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_guess_reads_what_was_refused(tmp_path, plain, case):
    table, head, separator, encoding, guess = CASES[case]
    path = write(tmp_path / "log.csv", table, head, separator, encoding)
    with pytest.raises(DataError):
        load_own(path, window=64, stride=32)
    look = guessed(path)
    assert (look.guess, look.refusal) == (guess, "")
    found = read(path, look)
    assert found.class_names == (plain.class_names if case != "encoding" else ("run", "sit", "wälk"))
    assert np.array_equal(found.x, plain.x)
    assert same(found, plain) or case == "encoding"


def test_labels_and_numbers_that_stand_for_none(tmp_path):
    table = [(*row[:4], "NA" if i == 5 else row[4], *row[5:]) for i, row in enumerate(rows())]
    table = [
        (row[0], -1 if i % 160 < 70 else ["run", "sit", "walk"].index(row[1]), *row[2:])
        for i, row in enumerate(table)
    ]
    path = write(tmp_path / "log.csv", table)
    look = guessed(path)
    assert look.guess == {"missing": ["NA"], "unlabelled": [-1]}
    assert read(path, look).class_names == ("0", "1", "2")
    assert [c.odd for c in look.columns if c.name == "x"] == [("NA",)]
    coded = [(*row[:4], -999 if i == 5 else row[4], *row[5:]) for i, row in enumerate(rows())]
    assert guessed(write(path, coded)).guess == {"missing": [-999]}
    assert guessed(write(path, coded)).columns[4].low > -5


def test_what_is_said_is_no_guess(tmp_path):
    path = write(tmp_path / "log.csv", *OWN)
    look = guessed(path, columns=Columns(client="model"))
    roles = {c.name: (c.role, c.certain) for c in look.columns}
    assert roles["model"] == ("client", True)
    assert roles["activity"] == ("label", False)
    assert roles["x"] == ("channel", False)
    assert "client" not in look.guess["columns"]
    assert look.columns[0].rises
    look = guessed(path, columns=Columns(channels=("x", "y")))
    assert [c.name for c in look.columns if c.role == "channel" and c.certain] == ["x", "y"]
    assert "channels" not in look.guess["columns"]


def test_windows_that_are_too_long(tmp_path):
    path = write(tmp_path / "log.csv", rows(n=40))
    with pytest.raises(DataError, match="fewer than 3"):
        load_own(path, window=64, stride=32)
    assert guessed(path).guess == {"window": 32, "stride": 16}


def test_of_a_long_or_a_wide_file_the_first_rows_are_looked_at(tmp_path):
    path = write(tmp_path / "log.csv", *renamed(rows(n=2500)))  # of the third client there are 5,000 of 7,500
    look = guessed(path)
    assert (look.rows, look.all, look.refusal) == (20_000, False, "")
    assert guessed(write(path, *renamed(rows()))).all
    head = ("user", "activity", *(f"f{k}" for k in range(2000)))
    wide = [
        (client, label, *map(str, range(k, k + 2000)))
        for client, label, k in [("a", "b", 3), ("c", "d", 9)] * 510
    ]
    assert guessed(write(path, wide, head)).rows == 2_000_000 // 2002


def test_what_no_setting_reads(tmp_path):
    path = tmp_path / "log.csv"
    write(path, rows()[1:], rows()[0])
    look = guessed(path)
    assert "no line names the columns: data.header does" in look.refusal
    assert look.guess == {"header": [f"column_{k}" for k in range(1, 8)]}
    assert ({c.role for c in look.columns}, look.rows) == ({""}, 1440)
    named = guessed(path, header=("who", *HEAD[1:]))
    assert (named.guess, named.refusal) == ({"columns": {"client": "who"}}, "")
    look = guessed(write(path, [row[1:] for row in rows()], ("what happens", *HEAD[2:])))
    assert "no column looks like a client's" in look.refusal
    long = [(*row[:4], name, value) for row in rows() for name, value in zip("xyz", row[4:], strict=True)]
    look = guessed(write(path, long, (*HEAD[:4], "sensor", "value")))
    assert (look.guess, "words in column 'sensor' change" in look.refusal) == ({}, True)
    path.write_text("hello\nworld\n")
    assert guessed(path) is None
    path.write_bytes(b"")
    assert guessed(path) is None
    path.write_bytes(gzip.compress(b"a,b\n1,2\n")[:-9])
    assert guessed(path) is None


def test_the_header_stands_below_what_a_logger_says(tmp_path):
    table, head = OWN
    path = write(tmp_path / "log.csv", table, ("Logger 3\nstarted;today\n\nseconds_elapsed", *head[1:]), ";")
    look = guessed(path)
    assert (look.header, look.separator, look.rows) == (4, ";", 1440)
    assert look.guess["columns"]["client"] == "user"


def test_of_a_folder_the_file_that_is_refused(tmp_path):
    for client in ("ann", "bob"):
        head = HEAD[1:] if client == "ann" else ("activity", *HEAD[2:])
        write(tmp_path / f"{client}.csv", [row[1:] for row in rows((client,))], head)
    path, client = refused_file(tmp_path, Reading())
    assert (path.name, client) == ("bob.csv", "bob")
    assert guessed(path, client).guess == {"columns": {"label": "activity"}}
    (tmp_path / "inner").mkdir()
    assert refused_file(tmp_path, Reading()) is None
    assert refused_file(tmp_path / "none.csv", Reading()) is None
