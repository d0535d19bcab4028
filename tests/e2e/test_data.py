"""``fedali data`` and ``fedali schema`` as a user with own data meets them first."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.test_cli import complaint, fedali
from tests.unit.look.logs import HEAD, renamed, rows, write


def test_from_a_strangers_file_to_a_run(tmp_path):
    """What is printed for a file that cannot be read goes into a scenario, and that runs."""
    write(tmp_path / "own.csv", *renamed(rows()))
    refused = fedali("data", "own.csv", cwd=tmp_path, code=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("fedali: own.csv lacks the column 'client'")
    begin = refused.stdout.index("[data]")
    (tmp_path / "my_study.toml").write_text(refused.stdout[begin : refused.stdout.index("Then:")])
    looked = fedali("data", "my_study.toml", cwd=tmp_path)
    assert looked.stderr == ""
    assert "user" in looked.stdout
    words = ["--rounds", "1", "--engine", "loop", "--set", "model.options.channels=[4,8]", "--json"]
    run = json.loads(fedali("simulate", "my_study.toml", *words, cwd=tmp_path).stdout)
    assert run["rounds"] == 1


def test_json_alone_and_settings_of_a_scenario(tmp_path):
    write(tmp_path / "log.csv", rows())
    words = ["--set", "data.window=32", "--set", "data.stride=16", "--json"]
    (line,) = fedali("data", "log.csv", *words, cwd=tmp_path).stdout.splitlines()
    assert json.loads(line)["look"]["shape"] == [32, 3]
    wrong = complaint(fedali("data", "log.csv", "--set", "data.windo=32", cwd=tmp_path, code=2))
    assert "did you mean 'window'?" in wrong
    assert "digitz" in complaint(fedali("data", "digitz", cwd=tmp_path, code=2))
    assert "fedali data my_data.csv" in fedali("data", "-h", cwd=tmp_path).stdout


@pytest.mark.parametrize("columns", ["80", "30"])
def test_an_output_of_ascii_alone(tmp_path, columns):
    write(tmp_path / "log.csv", rows(("Zoë", "李娜", "[b]")))
    env = {"PYTHONIOENCODING": "ascii", "COLUMNS": columns}
    words = ["--set", "data.window=64", "--set", "data.stride=32"]
    text = fedali("data", "log.csv", *words, cwd=tmp_path, env=env).stdout
    assert text.isascii()
    assert "Zo\\xeb" in text
    assert "[b]" in text
    assert max(map(len, text.splitlines())) <= int(columns)


def test_a_simulation_that_is_refused_says_where_to_look(tmp_path):
    path = write(tmp_path / "my log.csv", *renamed(rows()))
    (tmp_path / "s.toml").write_text(f'[data]\nsource = "{path.name}"\n')
    line = complaint(fedali("simulate", "s.toml", "-q", cwd=tmp_path, code=2))
    assert re.search(r"lacks the column 'client'.*: fedali data 'my log.csv'$", line)


def test_a_schema_has_the_rate_where_times_are_dates(tmp_path):
    dated = [(*row[:3], f"2024-03-31T01:59:{float(row[3]):06.3f}Z", *row[4:]) for row in rows()]
    table = [(row[0], row[1], row[3], *row[4:]) for row in dated]
    write(tmp_path / "mine.csv", table, ("user", "label", "time", *HEAD[4:]))
    words = ["--set", "data.columns.client=user", "--window", "64"]
    done = fedali("schema", "mine.csv", *words, cwd=tmp_path)
    assert "\nrate = 50.0\n" in done.stdout
    assert "shape = [64, 3]" in done.stdout
    assert "note: rate is 50 rows a second, by the dates in 'time'" in done.stderr
    done = fedali("schema", "mine.csv", *words, "--rate", "49.5", cwd=tmp_path)
    assert "\nrate = 49.5\n" in done.stdout
    assert "rate" not in done.stderr
    write(tmp_path / "log.csv", rows())
    (tmp_path / "study.toml").write_text('[data]\nsource = "log.csv"\nwindow = 32\nstride = 16\n')
    done = fedali("schema", "study.toml", cwd=tmp_path)
    assert "\n# rate =\n" in done.stdout
    assert "shape = [32, 3]" in done.stdout
    assert "guess: they count seconds, by the intervals, which would be --rate 50" in done.stderr
