"""Schemas: what is written is read back, and what makes no sense is one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.data import as_dataset, load_digits_dataset, load_own
from fedali.errors import SettingsError
from fedali.schema import Schema, parse_schema, read_schema
from fedali_simulations import load_scenario, simulate
from fedali_simulations.commands.schema import schema as command
from fedali_simulations.template import to_toml

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="devices read no schema")
PLAIN = 'shape = [4, 2]\nclasses = ["a", "b"]\n'

word = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)


@st.composite
def schemas(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    count = shape[0] if len(shape) == 3 else shape[-1]

    def some(least, most):
        return tuple(draw(st.lists(word, min_size=least, max_size=most, unique=True)))

    units = draw(st.sampled_from([(), ("",) * count, ("m/s²",) * count]))
    rate = draw(st.none() | st.floats(1e-6, 1e9))
    return Schema(draw(word), shape, some(2, 30), some(count, count), units, rate)


@given(schemas())
def test_a_schema_is_read_back_as_it_was_written(schema):
    assert parse_schema(schema.to_toml(), "s.toml") == schema


def test_written_by_hand_little_is_needed(tmp_path):
    path = tmp_path / "gait.toml"
    path.write_text(f"{PLAIN}rate = 50\nwindow = 4\n")
    schema = read_schema(path)
    assert schema == Schema("gait", (4, 2), ("a", "b"), ("channel-1", "channel-2"), (), 50.0)
    assert schema.window == 4
    assert read_schema(path).to_toml().startswith("# What samples are")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("shape = [4", "s.toml: not valid TOML"),
        ('classes = ["a", "b"]', "s.toml: shape is missing"),
        ("shape = [4, 2]", "s.toml: classes is missing"),
        (PLAIN + "clases = 1", r"s.toml: unknown key 'clases'; did you mean 'classes'\?"),
        (PLAIN.replace("[4, 2]", "[4, 0]"), r"s.toml: shape is \[4, 0\]; a sample is"),
        (PLAIN.replace("[4, 2]", "[1, 2, 3, 4]"), r"s.toml: shape is \[1, 2, 3, 4\]; a sample is"),
        (
            PLAIN.replace("[4, 2]", "[4, 2.0]"),
            r"s.toml: shape is \[4, 2.0\]; it has to be a list of whole numbers",
        ),
        (PLAIN.replace("[4, 2]", "[true]"), "it has to be a list of whole numbers"),
        (PLAIN.replace("[4, 2]", "[99999, 99999]"), "a sample is"),
        (PLAIN.replace('"b"', "1"), "s.toml: classes is .*; it has to be a list of names in quotes"),
        (PLAIN.replace('"b"', '"a"'), "s.toml: classes has 'a' twice"),
        (PLAIN.replace(', "b"', ""), "s.toml: classes has 1 names; there have to be at least two"),
        (PLAIN.replace('"b"', '"b\\nc"'), r"s.toml: classes has 'b\\nc'; it has to be one line of text"),
        (PLAIN + 'channels = ["x"]', r"channels has 1 names, and a sample of shape \[4, 2\] has 2 channels"),
        (PLAIN + 'units = ["g"]', r"units has 1 names, and a sample of shape \[4, 2\] has 2 channels"),
        (PLAIN + "units = 3", "units is 3; it has to be a list of names"),
        (PLAIN + "rate = -1", "rate is -1.0; it has to be raw samples a second, above 0"),
        (PLAIN + "rate = nan", "rate is nan"),
        (PLAIN + "rate = true", "rate is True; it has to be a number"),
        (PLAIN + "name = 3", "name is 3; it has to be text"),
        (PLAIN + "window = 5", r"window is 5; samples of shape \[4, 2\] are windows of 4"),
        (
            PLAIN.replace("[4, 2]", "[8]") + "window = 8",
            r"window is 8; samples of shape \[8\] are no windows",
        ),
    ],
)
def test_what_is_wrong_is_one_line(text, line):
    with pytest.raises(SettingsError, match=line) as error:
        parse_schema(text, "s.toml")
    assert "\n" not in str(error.value)


def test_files_that_are_none_are_one_line(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no schema .*none.toml; make one: fedali schema"):
        read_schema(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot read the schema"):
        read_schema(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read_schema(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(SettingsError, match="is it a schema"):
        read_schema(tmp_path / "b.toml")


def test_classes_that_are_numbers_are_warned_of_where_they_are_no_places():
    assert "These are numbers" in Schema("steps", (4, 2), ("1", "2", "3")).to_toml()
    assert "These are numbers" not in Schema("digits", (4, 2), ("0", "1", "2")).to_toml()


def test_of_data_it_says_what_they_are_and_nothing_of_them(tmp_path, capsys):
    rows = [
        f"{c},{label},{i * 7 % 40}.25,{i * 11 % 40}"
        for c in "ab"
        for label in ("sit", "run")
        for i in range(40)
    ]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["client,label,force,angle", *rows]) + "\n")
    command(str(path), window=8, stride=4, rate=12.5)
    text = capsys.readouterr().out
    found = parse_schema(text, "mine.toml")
    assert found == Schema("mine", (8, 2), ("run", "sit"), ("force", "angle"), (), 12.5)
    assert found == Schema.of(load_own(path, window=8, stride=4), rate=12.5)
    assert ".25" not in text
    command("digits", window=128, stride=64, rate=None)
    digits = parse_schema(capsys.readouterr().out, "digits.toml")
    assert digits == Schema.of(load_digits_dataset())
    assert (digits.shape, digits.channels, digits.rate) == ((1, 8, 8), ("grey",), None)
    command("motionsense", window=128, stride=64, rate=None)  # without its data
    assert parse_schema(capsys.readouterr().out, "m").units == ("g",) * 3 + ("rad/s",) * 3
    np.savez(tmp_path / "one.npz", x=np.zeros((9, 5)), y=np.arange(9) % 2, client=np.arange(9) // 3)
    command(str(tmp_path / "one.npz"), window=128, stride=64, rate=None)
    assert parse_schema(capsys.readouterr().out, "s").shape == (5,)
    with pytest.raises(SettingsError, match=r"DATA 'digitz' is no file or folder; did you mean 'digits'\?"):
        command("digitz", window=128, stride=64, rate=None)


def test_a_scenario_has_one_of_source_and_schema():
    named = load_scenario({"data": {"schema": "s.toml"}})
    assert (named.data.schema, named.data.source) == ("s.toml", None)
    assert load_scenario("digits").data.schema is None
    for data, have in (({}, "neither"), ({"source": "digits", "schema": "s.toml"}, "both")):
        with pytest.raises(SettingsError, match=f"there is {have}: give one"):
            load_scenario({"data": data})
    assert '\nschema = "s.toml"\n' in to_toml(named)
    assert "\n# source =\n" in to_toml(named)


def test_a_simulation_takes_no_schema(tmp_path):
    with pytest.raises(
        SettingsError, match="tells of data that are elsewhere, and a simulation needs them here"
    ):
        simulate({"data": {"schema": "s.toml"}}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ids_of_tokens_say_so():
    ids = np.arange(12).reshape(4, 3)
    schema = Schema.of(as_dataset((ids, ["a", "b"] * 2, [0, 0, 1, 1])))
    assert (schema.shape, schema.dtype) == ((3,), "int64")
    assert 'dtype = "int64"' in schema.to_toml()
    assert parse_schema(schema.to_toml(), "words.toml") == schema
    with pytest.raises(SettingsError, match="dtype is 'int8'; measurements are"):
        Schema("x", (3,), ("a", "b"), dtype="int8")
