"""Facts of data sets against numbers counted by hand or by numpy alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedali.data import Columns, Reading, load_digits_dataset, load_own
from fedali.data.look.facts import look_at
from fedali.errors import DataError
from tests.unit.look.logs import HEAD, rows, write


def looked(folder, table, window=64, stride=32, head=HEAD, **reading):
    path = write(folder / "log.csv", table, head)
    return look_at(load_own(path, window=window, stride=stride, reading=Reading(**reading)))


def test_a_log_is_counted(tmp_path):
    table = [row for row in rows() if row[:2] != ("c3", "walk")]
    look = looked(tmp_path, table)
    assert (look.name, look.samples, look.shape, look.dtype) == ("log", 32, (64, 3), "float32")
    assert [(c.name, c.samples, c.counts, c.recordings) for c in look.clients] == [
        ("c1", 12, (4, 4, 4), 1),
        ("c2", 12, (4, 4, 4), 1),
        ("c3", 8, (4, 4, 0), 1),
    ]
    assert [(c.name, c.samples, c.lacking) for c in look.classes] == [
        ("run", 12, ()),
        ("sit", 12, ()),
        ("walk", 8, ("c3",)),
    ]
    assert (look.recordings, look.length, look.shared) == (3, 64, 0.5)
    assert (look.rows, look.used) == (1280, 1280)
    assert look.files[0].columns == tuple((name, name) for name in ("client", "label", "recording", "time"))
    assert (look.files[0].separator, look.files[0].decimal, look.files[0].labels) == (",", ".", "names")


def test_channels_have_the_values_of_their_rows(tmp_path):
    table = [(*row, "0.5") for row in rows()]
    look = looked(tmp_path, table, window=40, stride=40, head=(*HEAD, "dead"))  # each row is in one window
    values = np.array([[float(cell) for cell in row[4:]] for row in table], np.float32)
    for k, channel in enumerate(look.channels):
        assert channel.low == values[:, k].min()
        assert channel.high == values[:, k].max()
        assert channel.mean == pytest.approx(values[:, k].mean(dtype=np.float64), rel=1e-9)
        assert channel.deviation == pytest.approx(values[:, k].std(dtype=np.float64), rel=1e-6, abs=1e-6)
        assert channel.constant == (channel.name == "dead")


def test_rows_outside_windows_are_counted(tmp_path):
    look = looked(tmp_path, rows(), window=100, stride=30)  # of each 160 rows: those up to 130 + 30
    assert look.used == 9 * 160
    look = looked(tmp_path, rows(), window=100, stride=50)  # up to 150
    assert (look.used, look.rows) == (9 * 150, 9 * 160)
    assert looked(tmp_path, rows(), window=64, stride=80).shared == 0


def test_times_that_are_numbers_are_a_guess_and_dates_are_certain(tmp_path):
    times = looked(tmp_path, rows()).times
    assert (times.unit, times.certain, times.certain_rate) == ("s", False, None)
    assert times.rate == pytest.approx(50)
    dated = [(*row[:3], f"2024-03-31T01:59:{float(row[3]):06.3f}Z", *row[4:]) for row in rows()]
    times = looked(tmp_path, dated).times
    assert (times.unit, times.certain, times.why, times.certain_rate) == ("s", True, "", 50.0)
    mixed = [dated[0], *rows()[1:]]
    mixed[0] = (*mixed[0][:3], "1970-01-01T00:00:00", *mixed[0][4:])
    with pytest.raises(DataError, match="line 3: column 'time' is a number, and a date in the lines before"):
        looked(tmp_path, mixed)


def test_packets_and_pauses(tmp_path):
    packets = [(*row[:3], f"{int(float(row[3]) / 0.06 + 1e-6) * 0.06:.2f}", *row[4:]) for row in rows()]
    times = looked(tmp_path, packets).times
    assert times.rate == pytest.approx(50, rel=0.005)
    assert times.interval == pytest.approx(0.06)
    assert times.equal == 3 * (480 - 160)
    paused = [
        (*row[:3], f"{float(row[3]) + 3600 * (i % 160 >= 80) + 7200 * (i % 480 // 160):.2f}", *row[4:])
        for i, row in enumerate(rows())
    ]
    look = looked(tmp_path, paused)
    assert look.times.pauses == 3 * 5
    assert look.times.longest_pause == pytest.approx(3600.02)
    assert look.times.rate == pytest.approx(50)
    assert any("15 pauses" in note for note in look.notes)


def test_a_hole_is_no_pause(tmp_path):
    table = [row for i, row in enumerate(rows()) if i not in (50, 51, 52, 700)]
    times = looked(tmp_path, table).times
    assert (times.pauses, times.holes) == (0, 2)
    assert times.longest_hole == pytest.approx(0.08)


def test_recordings_of_two_rates_have_no_certain_one(tmp_path):
    dated = [
        (*row[:3], f"2024-03-31T01:59:{float(row[3]) * (2 if row[0] == 'c1' else 1):06.3f}Z", *row[4:])
        for row in rows()
    ]
    times = looked(tmp_path, dated).times
    assert times.certain
    assert (times.slowest, times.fastest) == (pytest.approx(25), pytest.approx(50))
    assert times.certain_rate is None


@pytest.mark.parametrize(
    ("name", "step", "begin", "unit"),
    [
        ("time", 0.02, 0, "s"),
        ("time", 20, 0, "ms"),
        ("time", 20_000, 0, "us"),
        ("time", 20_000_000, 0, "ns"),
        ("time_us", 20, 0, "us"),
        ("time", 20, 1.6e12, "ms"),
        ("time", 1000, 1.6e12, "ms"),
        ("time_s", 20, 1.6e12, ""),  # its name and its size disagree
        ("time", 1, 0, ""),  # may count rows
        ("time", 1000, 0, ""),  # seconds, milliseconds, or microseconds
    ],
)
def test_what_a_number_counts_is_guessed_where_there_is_a_sign(tmp_path, name, step, begin, unit):
    table = [(*row[:3], repr(begin + k % 480 * step), *row[4:]) for k, row in enumerate(rows())]
    head = (*HEAD[:3], name, *HEAD[4:])
    times = looked(tmp_path, table, head=head, columns=Columns(time=name)).times
    assert (times.unit, times.certain, times.certain_rate) == (unit, False, None)
    assert bool(times.why)
    scale = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    assert times.rate == (pytest.approx(1 / (step * scale[unit]), rel=1e-4) if unit else None)


def test_samples_that_are_no_windows():
    look = look_at(load_digits_dataset())
    assert (look.samples, look.recordings, look.length, look.used, look.times) == (1797, 0, 0, 0, None)
    assert [c.name for c in look.channels] == ["grey"]
    assert sum(one.samples for one in look.classes) == 1797


def test_a_folder_has_a_file_for_each_client(tmp_path):
    for client in ("ann", "bob"):
        write(tmp_path / f"{client}.csv", [row[1:] for row in rows((client,))], HEAD[1:], ";")
    (tmp_path / "notes.txt").write_text("hello")
    look = look_at(load_own(tmp_path, window=64, stride=32))
    assert [file.separator for file in look.files] == [";", ";"]
    assert [(c.name, c.recordings) for c in look.clients] == [("ann", 1), ("bob", 1)]
    assert look.times.pauses == 0
    assert "notes.txt" in look.notes[0]


def test_what_a_reading_names_is_what_the_file_says(tmp_path):
    head = ("who", "what", "recording", "t", "x", "y", "z")
    look = looked(tmp_path, rows(), head=head, columns=Columns(client="who", label="what", time="t"))
    assert look.files[0].columns == (
        ("client", "who"),
        ("label", "what"),
        ("recording", "recording"),
        ("time", "t"),
    )
    assert look.times.columns == ("t",)
    assert replace(look.times, unit="").rate == look.times.rate
