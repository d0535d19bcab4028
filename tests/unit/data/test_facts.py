"""What a bundle says of data, and settings in the place of a scenario: read back as they were, and refused where they make no sense."""

from __future__ import annotations

import pytest

from fedali.data import Columns, Reading
from fedali.data.facts import DataFacts
from fedali.data.sources.settings import parse_settings, plain_settings, with_settings
from fedali.errors import SettingsError

FULL = Reading(
    columns=Columns("who", "what", "trial", "t", ("a", "b")),
    gap=3.5,
    unlabelled=("-1", ""),
    missing=(),
    separator="\t",
    decimal=",",
    encoding="cp1252",
    time_format="%d/%m/%Y",
    layout="ct",
)


@pytest.mark.parametrize(
    "reading", [Reading(), FULL, Reading(unlabelled=()), Reading(columns=Columns(time="t"))]
)
def test_settings_come_back_as_they_were(reading):
    assert with_settings(Reading(), plain_settings(reading), "here") == reading
    facts = DataFacts(("x", "y"), 5, 0.02, (1,), reading)
    assert DataFacts.from_plain(facts.to_plain(), (8, 2), "here") == facts


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ('data.separator=";"', "separator", ";"),
        ("data.separator=;", "separator", ";"),
        ("data.separator=,", "separator", ","),
        ("data.separator=\t", "separator", "\t"),
        (r'data.separator="\t"', "separator", "\t"),
        ("data.columns.label=activity", "columns.label", "activity"),
        ("data.columns.label = 7", "columns.label", "7"),
        ("data.columns.recording=", "columns.recording", None),
        ('data.columns.channels=["a", "b c"]', "columns.channels", ("a", "b c")),
        ("data.columns.channels=a, b c", "columns.channels", ("a", "b c")),
        ("data.missing=-999", "missing", ("-999",)),
        ("data.missing=[-999, 'NA', '']", "missing", ("-999", "NA", "")),
        ("data.unlabelled=[]", "unlabelled", ()),
        ("data.unlabelled=?", "unlabelled", ("?",)),
        ("data.gap=4", "gap", 4.0),
        ("data.stride=16", "stride", 16),
        ("data.time_format=%d/%m/%Y %H:%M:%S", "time_format", "%d/%m/%Y %H:%M:%S"),
    ],
)
def test_words_of_a_command_line(word, name, value):
    assert parse_settings([word]) == {name: value}


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("separator=;", r'--set takes data.NAME=VALUE, not .*; for example --set data.separator=";"'),
        ("data.separator", "--set takes data.NAME=VALUE"),
        ("data.seperator=;", r"unknown setting data.seperator; did you mean 'separator'\?"),
        ("data.columns=user", "unknown setting data.columns; for example data.columns.client=user"),
        ("data.gap=wide", "data.gap is 'wide'; it has to be a number"),
        ("data.stride=0", "data.stride is 0; it has to be a whole number of at least 1"),
        ("data.missing={1: 2}", "data.missing is {1: 2}; it has to be a value, or a list"),
    ],
)
def test_words_that_make_no_sense(word, line):
    with pytest.raises(SettingsError, match=line):
        parse_settings([word])


def test_what_readings_refuse_is_refused_with_where():
    with pytest.raises(SettingsError, match=r"^--set: data.separator is 'ab'; it has to be one character"):
        with_settings(Reading(), {"separator": "ab"}, "--set")


@pytest.mark.parametrize(
    "plain",
    [
        {"channel": ["x"]},
        {"channels": ["x"]},
        {"channels": ["x", "x"]},
        {"channels": ["x", ""]},
        {"channels": "xy"},
        {"constant": [2]},
        {"constant": [True]},
        {"stride": 0},
        {"stride": 1.5},
        {"interval": 0},
        {"interval": True},
        {"interval": float("inf")},
        {"reading": []},
        {"reading": {"window": 5}},
        {"reading": {"gap": 0.5}},
        {"reading": {"layout": "abc"}},
        {"reading": {"unknown": 1}},
        {"reading": {"missing": ["x" * 2000]}},
        {"reading": {"missing": [[1]]}},
    ],
)
def test_facts_that_make_no_sense(plain):
    with pytest.raises(SettingsError):
        DataFacts.from_plain(plain, (8, 2), "a manifest")
