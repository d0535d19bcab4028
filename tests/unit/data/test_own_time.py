"""Times of one's own CSV: windows stop at pauses, and the later day is the later one."""

import time

import numpy as np
import pytest

from fedali.data import build_federation, load_own, natural
from fedali.data.sources.reading import Reading
from fedali.errors import DataError, SettingsError


def write(folder, rows, head="client,label,recording,time,x"):
    path = folder / "log.csv"
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def rows_at(times, recording="r", client="ann", values=None):
    """Rows of two classes, half and half, whose value is ``values`` or noise."""
    noise = np.random.default_rng(len(times)).normal(size=len(times)).round(4)
    return [
        (
            client,
            "sit" if i < len(times) // 2 else "walk",
            recording,
            t,
            (noise if values is None else values)[i],
        )
        for i, t in enumerate(times)
    ]


def test_no_window_crosses_a_pause_and_it_is_said_how_many(tmp_path):
    t = np.arange(80) * 0.5
    t[20:] += 3600
    t[70:] += 30
    value = np.arange(80) * 37 % 80
    data = load_own(write(tmp_path, rows_at(t.tolist(), values=value)), window=8, stride=4)
    begins = [value.tolist().index(int(first)) for first in data.x[:, 0, 0]]
    stretches = [(0, 20), (20, 40), (40, 70), (70, 80)]
    assert begins == [i for a, b in stretches for i in range(a, b - 7, 4)]
    assert data.start.tolist() == begins
    assert data.notes == (
        "windows are cut anew after 2 pauses of more than 10 median intervals of a recording (data.gap)",
    )
    wide = load_own(
        write(tmp_path, rows_at(t.tolist(), values=value)), window=8, stride=4, reading=Reading(gap=100)
    )
    assert "a pause of more than 100 median intervals" in wide.notes[0]
    assert len(wide.y) > len(data.y)


def test_each_recording_has_an_interval_of_its_own(tmp_path):
    rows = [*rows_at([i * 0.01 for i in range(40)]), *rows_at([50 + i * 0.5 for i in range(40)], "slow")]
    (note,) = load_own(write(tmp_path, rows), window=8, stride=4).notes
    assert note.startswith("recordings have other rates, 2 to 100 rows in a unit of 'time'")


def test_equal_times_are_a_packet_and_no_pause(tmp_path):
    plain = load_own(write(tmp_path, rows_at([i * 0.02 for i in range(60)])), window=8, stride=4)
    packets = load_own(write(tmp_path, rows_at([i // 6 * 0.12 for i in range(60)])), window=8, stride=4)
    assert np.array_equal(packets.x, plain.x)
    assert not packets.notes
    with pytest.raises(DataError, match="line 12: time does not increase, it goes back"):
        load_own(write(tmp_path, rows_at([*range(10), 8.5, *range(11, 60)])), window=8, stride=4)


def test_the_later_day_is_tested_wherever_it_stands_in_the_file(tmp_path):
    late = rows_at([90000 + i for i in range(80)], "late", values=100 + np.arange(80) % 7)
    early = rows_at(list(range(80)), "early", values=np.arange(80) % 7)
    other = rows_at(list(range(160)), client="bob")
    apart = load_own(write(tmp_path, [*late, *early, *other]), window=8, stride=8)
    sorted_ = load_own(write(tmp_path, [*early, *late, *other]), window=8, stride=8)
    for data in (apart, sorted_):
        federation = build_federation(data, partition=natural(data), fractions=(0.5, 0, 0.5), seed=0)
        assert federation.clients[0].x_train.max() < 10
        assert federation.clients[0].x_test.min() >= 100
    assert not apart.notes


def test_recordings_whose_times_begin_anew_stay_in_the_order_of_the_rows(tmp_path):
    rows = [*rows_at([i + 0.1 for i in range(80)], "b"), *rows_at(list(range(80)), "a")]
    data = load_own(write(tmp_path, rows), window=8, stride=8)
    assert data.recording.tolist() == sorted(data.recording.tolist())
    assert data.notes == (
        "recordings of a client overlap in time, so that they are in the order of the rows, not of their times",
    )


def test_iso_times_are_the_same_on_every_machine(tmp_path, monkeypatch):
    rows = rows_at([f"2024-03-31T0{1 + (50 + i) // 60}:{(50 + i) % 60:02}:00" for i in range(80)])
    try:
        for name in ("Europe/Berlin", "UTC"):  # Berlin has no half past two that night
            monkeypatch.setenv("TZ", name)
            time.tzset()
            assert not load_own(write(tmp_path, rows), window=8, stride=4, reading=Reading(gap=1.5)).notes
    finally:
        monkeypatch.undo()
        time.tzset()
    aware = rows_at([f"2024-05-01T10:{i // 60:02}:{i % 60:02}Z" for i in range(80)])
    assert len(load_own(write(tmp_path, aware), window=8, stride=4).y) == 18
    days = rows_at([20240501 + i for i in range(80)])  # numbers, though they may be dates too
    assert not load_own(write(tmp_path, days), window=8, stride=4).notes


@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M %p", "%d/%m/%Y %I:%M"])
def test_a_format_whose_halves_of_days_would_be_lost(form):
    with pytest.raises(SettingsError, match=r"%p .* and %I .* need each other"):
        Reading(time_format=form)
