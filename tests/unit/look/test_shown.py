"""What ``fedali data`` prints: guesses called so, text of files escaped, and a scenario that reads the same data set."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tomllib

from fedali.errors import SettingsError
from fedali_server.console import Console
from fedali_simulations import load_scenario
from fedali_simulations.data import load, load_dataset
from fedali_simulations.looking import see
from fedali_simulations.report.look import print_seen
from tests.unit.look.logs import HEAD, renamed, rows, write

CUT = ["data.window=64", "data.stride=32"]


def seen(path, *settings):
    return see(str(path), load_scenario({"data": {"source": str(path)}}, settings), own=True)


def shown(found, width=80, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    print_seen(found, Console(file=stream, width=width))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def scenario_in(text):
    """The lines of the scenario that is printed last."""
    return tomllib.loads(text[text.index("[data]") : text.index("\nThen: fedali")])


@pytest.fixture
def log(tmp_path):
    return write(tmp_path / "log.csv", rows())


def test_facts_and_guesses_are_told_apart(log):
    text = shown(seen(log, *CUT))
    lines = [line.split() for line in text.splitlines()]
    assert f"{log}: 36 windows, 3 clients, 3 classes" in text.replace("\n", "", 1)
    assert ["c1", "12", "4", "4", "4"] in lines
    assert ["all", "36", "12", "12", "12"] in lines
    assert "numbers in 'time'; guess: seconds, by the intervals" in text
    assert "guess: 50 rows a second; intervals of 20 ms" in text
    assert "A scenario that reads it" in text
    dated = [(*row[:3], f"2024-03-31T01:59:{float(row[3]):06.3f}Z", *row[4:]) for row in rows()]
    text = shown(seen(write(log, dated), *CUT))
    assert "dates in 'time'" in text
    assert "\nrate        50 rows a second" in text
    assert "guess:" not in text


@pytest.mark.parametrize(("width", "encoding"), [(80, "utf-8"), (80, "ascii"), (30, "utf-8"), (30, "ascii")])
def test_the_scenario_that_is_printed_reads_the_same_data(tmp_path, width, encoding):
    """Also where letters are spelled, and lines are longer than the terminal is wide."""
    folder = tmp_path / "Zoë [b] \u202e"
    folder.mkdir()
    table, head = renamed(rows(("Zoë", "[red]x", "\x1b[2Jy")))
    path = write(folder / "lög.csv", table, (*head[:-2], "pérson", head[-1]))
    columns = 'data.columns={client="pérson",label="activity",time="seconds_elapsed"}'
    found = seen(path, columns, *CUT)
    text = shown(found, width, encoding)
    assert not any(letter in text for letter in ("\x1b", "\u202e"))
    assert "[red]x" in text
    assert max(len(line) for line in text.partition("[data]")[0].splitlines()[8:]) <= width
    printed = load_scenario(scenario_in(text))
    assert printed.data.source == str(path)
    one, other = load_dataset(printed, 0), load_dataset(load_scenario(found.beginning), 0)
    assert np.array_equal(one.x, other.x)
    assert one.client_names == ("Zoë", "[red]x", "\x1b[2Jy")
    assert len(load(printed, 0)[1].clients) == 3


def test_what_is_refused_is_shown_with_a_guess(tmp_path):
    path = write(tmp_path / "own.csv", *renamed(rows()))
    found = seen(path, *CUT)
    assert "lacks the column 'client'" in found.refusal
    text = shown(found)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "user 3 words: c1, c2, c3 guess: client" in lines
    assert "seconds_elapsed numbers, 0 to 9.58, rising guess: time" in lines
    assert "model 1 word: nexus4 guess: left out" in lines
    assert "guess: this reads it (36 windows, 3 clients, 3 classes)" in text
    assert scenario_in(text) == {
        "data": {
            "source": str(path),
            "window": 64,
            "stride": 32,
            "columns": {"client": "user", "label": "activity", "time": "seconds_elapsed"},
        }
    }


def test_windows_that_leave_no_test_samples_are_not_the_ones_proposed(log):
    found = seen(log)
    assert "no test samples" in found.parts.refusal
    assert (found.look.shape, found.guessed.shape) == ((128, 3), (64, 3))
    text = shown(found)
    assert "guess: shorter windows" in text
    assert scenario_in(text)["data"] == {"source": str(log), "window": 64, "stride": 32}
    told = seen(log, "data.window=128")  # said, and so nothing to guess
    assert told.beginning is None
    assert "[data]" not in shown(told)


def test_other_samples_get_a_model_and_a_split(tmp_path):
    y, client = np.arange(90) % 3, np.arange(90) // 30
    np.savez(tmp_path / "a.npz", x=np.zeros((90, 1, 12, 12), np.float32), y=y, client=client)
    np.savez(tmp_path / "b.npz", x=np.zeros((90, 5), np.float32), y=y, client=np.zeros(90, int))
    image, vector = seen(tmp_path / "a.npz"), seen(tmp_path / "b.npz")
    assert image.beginning["model"] == {"name": "cnn2d"}
    assert image.beginning["split"] == {"order": "random"}
    assert vector.beginning["model"] == {"name": "mlp"}
    assert vector.beginning["partition"] == {"kind": "dirichlet", "clients": 4, "minimum": 3}
    assert [c.constant for c in vector.look.channels] == [True] * 5
    assert len(vector.parts.clients) == 4
    assert "guess: a scenario that divides its one client" in shown(vector)
    assert shown(vector).count("constant") >= 5


def test_many_clients_classes_and_channels_are_summed_up(tmp_path):
    chance = np.random.default_rng(0)
    y, client = np.arange(3000) % 30, np.arange(3000) % 100 // 2
    client[0] = 7
    x = chance.normal(size=(3000, 561)).astype(np.float32)
    x[:, 400] = 2
    np.savez(tmp_path / "many.npz", x=x, y=y, client=client)
    text = shown(seen(tmp_path / "many.npz"))
    assert "50 clients: " in text
    assert "and 10 more" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("channel-401")] == ["constant"]
    assert "all 561" in text
    assert len(text.splitlines()) < 100


def test_a_scenarios_clients_are_those_after_its_partition(log, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(
        f'[data]\nsource = "{log}"\nwindow = 32\nstride = 32\n[partition]\nkind = "dirichlet"\nclients = 4\nminimum = 9\n'
    )
    found = see(str(study), load_scenario(study), own=False)
    assert found.beginning is None
    assert [c.name for c in found.parts.clients] == [f"client-{k}" for k in (1, 2, 3, 4)]
    assert found.parts.training + found.parts.validation + found.parts.test == sum(
        c.samples for c in found.parts.clients
    )
    text = shown(found)
    assert "clients after the partition 'dirichlet'" in text
    assert "my_study.toml" not in text
    with pytest.raises(SettingsError, match="no_such"):
        load_scenario(study, ["data.no_such=1"])


def test_machines_get_the_same_keys_whatever_was_found(log, tmp_path):
    own = write(tmp_path / "own.csv", *renamed(rows()))
    found = [json.loads(json.dumps(seen(path).to_dict())) for path in (log, own)]
    assert set(found[0]) == set(found[1])
    assert found[0]["refusal"] == ""
    assert found[0]["look"]["times"]["certain"] is False
    assert [c["name"] for c in found[0]["look"]["classes"]] == ["run", "sit", "walk"]
    assert found[1]["look"] is None
    assert found[1]["first"]["guess"]["columns"]["client"] == "user"
    for one in found:
        assert tomllib.loads(one["scenario"]) == one["beginning"]
    assert HEAD[0] == found[0]["look"]["files"][0]["columns"][0][1]
