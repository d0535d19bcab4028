"""Columns of a CSV: what is no measurement never becomes a channel without a word."""

import numpy as np
import pytest

from fedali.data import load_own
from fedali.data.sources.reading import Columns, Reading
from fedali.errors import DataError

ROWS = [
    (client, label, 0.02 * (i + 40 * k), *np.random.default_rng(i + 100 * k).normal(size=2).round(3).tolist())
    for client in ("ann", "bob")
    for k, label in enumerate(("sit", "walk"))
    for i in range(40)
]
HEAD = ("client", "label", "time", "x", "y")


def load(folder, rows, head, columns=None):
    path = folder / "log.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in (head, *rows)) + "\n", encoding="utf-8")
    return load_own(path, window=8, stride=4, reading=Reading(columns or Columns()))


@pytest.fixture
def plain(tmp_path):
    return load(tmp_path, ROWS, HEAD)


def same(one, other):
    for field in ("x", "y", "client", "recording", "start"):
        assert np.array_equal(getattr(one, field), getattr(other, field)), field
    return one.channel_names == other.channel_names and one.class_names == other.class_names


def beside(name, values, head=HEAD, rows=ROWS):
    return [(value, *row) for value, row in zip(values, rows, strict=True)], (name, *head)


@pytest.mark.parametrize(
    ("name", "values", "note"),
    [
        ("", range(160), "column 1 is left out: it is an index"),
        ("Unnamed: 0", [i * 37 % 160 for i in range(160)], "column 'Unnamed: 0' is left out: it is an index"),
        ("index", range(5, 165), "column 'index' is left out: it is an index"),
        ("row_id", [2 * i for i in range(160)], "column 'row_id' is left out: it is an index"),
        (
            "timestamp_ms",
            [17e11 + 20 * i for i in range(160)],
            "column 'timestamp_ms' is left out: it is a clock",
        ),
        ("model", ["nexus4"] * 160, "column 'model' is left out: it holds words ('nexus4')"),
        ("Unnamed: 0.1", range(160), "column 'Unnamed: 0.1' is left out: it is an index"),
        (
            "date",
            [f"2024-05-01 10:{i // 60:02}:{i % 60:02}" for i in range(160)],
            "column 'date' is left out: it is a clock",
        ),
        ("", [""] * 160, "column 1 is left out: it has no name and is empty"),
    ],
)
def test_what_is_certainly_no_channel_is_left_out_and_said(tmp_path, plain, name, values, note):
    found = load(tmp_path, *beside(name, values))
    assert same(found, plain)
    assert [line for line in found.notes if note in line]
    assert not plain.notes


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "",
            np.random.default_rng(5).normal(size=160),
            r'column 1 has no name.*data\.columns\.channels = \["x", "y"\]',
        ),
        ("a", range(160), "column 'a' counts up by one, like an index.*data.columns.time = 'a'"),
        ("a", list(range(64)) * 2 + list(range(32)), "column 'a' counts up by one"),
        ("a", np.arange(160) * 0.02, "column 'a' only rises, like a clock"),
        ("a", np.arange(160) // 3 * 0.06, "column 'a' only rises, like a clock"),
        ("a", np.arange(160) // 10 * 0.2, "column 'a' only rises, like a clock"),
        ("is_walk", np.arange(160) // 40 % 2, "column 'is_walk' has one value for each label"),
        ("activity_id", np.arange(160) // 40 % 2 + 3, "column 'activity_id' has one value for each label"),
    ],
)
def test_what_may_be_either_is_refused_with_the_setting(tmp_path, plain, name, values, message):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, *beside(name, values))
    assert "\n" not in str(caught.value)
    assert same(load(tmp_path, *beside(name, values), Columns(channels=("x", "y"))), plain)
    if name:
        assert load(tmp_path, *beside(name, values), Columns(channels=("y", name))).channel_names == (
            "y",
            name,
        )


def test_a_clock_without_a_time_column_is_refused_and_read_when_it_is_named(tmp_path, plain):
    head = ("client", "label", "seconds_elapsed", "x", "y")
    with pytest.raises(
        DataError, match=r"'seconds_elapsed' is a clock.*data\.columns\.time = 'seconds_elapsed'"
    ):
        load(tmp_path, ROWS, head)
    assert same(load(tmp_path, ROWS, head, Columns(time="seconds_elapsed")), plain)


def test_dates_without_a_time_column_and_cells_that_are_neither_numbers_nor_words(tmp_path, plain):
    rows = [
        (*row[:2], f"2024-05-01T10:{i // 60 % 60:02}:{i % 60:02}", *row[3:]) for i, row in enumerate(ROWS)
    ]
    head = ("client", "label", "stamp", "x", "y")
    with pytest.raises(DataError, match=r"column 'stamp' is a clock.*data\.columns\.time = 'stamp'"):
        load(tmp_path, rows, head)
    assert same(load(tmp_path, rows, head, Columns(time="stamp")), plain)
    with pytest.raises(DataError, match=r"column 'code' holds no numbers \('3A'\).*data\.columns\.channels"):
        load(tmp_path, *beside("code", ["3A"] * 160))


def test_a_number_of_a_trial_is_a_channel_and_it_is_said(tmp_path):
    data = load(tmp_path, *beside("trial", np.arange(160) // 80 + 4))
    assert data.channel_names == ("trial", "x", "y")
    assert "column 'trial' is a channel, and rarely changes" in data.notes[0]


def test_columns_under_other_names(tmp_path, plain):
    rows = [(t, x, y, label, client, "nexus4", "1") for client, label, t, x, y in ROWS]
    head = ("seconds", "x", "y", "activity", "user", "model", "label")
    columns = Columns(client="user", label="activity", time="seconds")
    found = load(tmp_path, rows, head, columns)
    assert same(found, plain)
    assert "column 'label' is left out: data.columns names another one as label" in found.notes
    with pytest.raises(DataError, match=r"lacks the column 'client'.*data\.columns\.client"):
        load(tmp_path, rows, head)
    loud = load(tmp_path, ROWS, ("Client", "LABEL", "Time", "x", "y"))
    assert same(loud, plain)
    assert "column 'Time' is taken as time" in loud.notes


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(client="usr"), r"lacks the column 'usr' that data\.columns\.client names"),
        (Columns(channels=("x", "z")), r"lacks the column 'z' that data\.columns\.channels names"),
        (Columns(channels=("x", "label")), "'label' is no channel"),
        (Columns(channels=("x", "x")), "each once"),
        (Columns(client="label"), "names 'label' as client and as label"),
    ],
)
def test_names_that_are_wrong(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, ROWS, HEAD, columns)
