"""Own CSV from the simulation to a device: the real commands cut the same windows on both, from files that look otherwise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedali.bundle.file import read_bundle
from fedali.data import Columns, Reading, load_own
from fedali.data.facts import DataFacts
from fedali_client import EdgeClient
from tests.e2e.test_cli import complaint, fedali
from tests.e2e.test_export import device

CLIENTS, LABELS = ("ann", "bob"), ("run", "sit", "walk")
STUDY = """
name = "gait"
methods = "fedavg"
[data]
source = "study.csv"
window = 16
stride = 4
gap = 5.0
unlabelled = ["none"]
columns = { client = "user", label = "activity", time = "seconds" }
[model]
name = "cnn1d"
options = { channels = [8, 16] }
[training]
rounds = 1
epochs = 1
engine = "loop"
"""


def table(clients, seed=0, each=100):
    """Rows (user, activity, seconds, x, y, z, dead) at 50 Hz, with a pause in the middle of each label."""
    random, time = np.random.default_rng(seed), 0.0
    for client in clients:
        for k, label in enumerate(LABELS):
            for i in range(each):
                time += 5.0 if i == each // 2 else 0.02
                shown = "none" if i >= each - 10 else label
                yield client, shown, round(time, 2), *random.normal(k, 1, 3).round(4).tolist(), 0.5


def write(path, head, rows, sep=","):
    path.write_text("\n".join(sep.join(map(str, row)) for row in [head, *rows]) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A study of CSV, its bundle, and a new recording of one person in two forms: as the study's, and as another logger has it."""
    folder = tmp_path_factory.mktemp("own")
    head = ("user", "activity", "seconds", "x", "y", "z", "dead")
    write(folder / "study.csv", head, table(CLIENTS))
    (folder / "study.toml").write_text(STUDY)
    fedali("simulate", "study.toml", "-q", "--out", "run", cwd=folder)
    fedali("export", "run", cwd=folder)
    new = list(table(["cyd"], seed=7))
    write(folder / "alike.csv", head, new)
    other = [(time, z, y, f"{x}".replace(".", ","), label, 7) for _, label, time, x, y, z, _ in new]
    other = [tuple(str(cell).replace(".", ",") for cell in row) for row in other]
    write(folder / "other.csv", ("t", "az", "ay", "ax", "label", "battery"), other, sep=";")
    return folder


OTHER = [f"--set=data.columns.{name}" for name in ("label=label", "time=t", "channels=ax,ay,az,battery")]


def test_a_bundle_knows_how_its_data_were_read(home):
    facts = read_bundle(home / "model.fedali", None, allow_unsigned=True).manifest.data
    columns = Columns(client="user", label="activity", time="seconds")
    reading = Reading(columns=columns, gap=5.0, unlabelled=("none",))
    expected = DataFacts(("x", "y", "z", "dead"), 4, pytest.approx(0.02), (3,), reading)
    assert facts == expected


@pytest.mark.parametrize(("name", "words"), [("alike.csv", []), ("other.csv", OTHER)])
def test_a_device_cuts_the_windows_of_the_simulation(home, tmp_path, name, words):
    reading = read_bundle(home / "model.fedali", None, allow_unsigned=True).manifest.data.reading
    cut = load_own(home / "alike.csv", window=16, stride=4, reading=reading)
    x = cut.x.copy()
    if name == "other.csv":
        x[..., 3] = 7
    np.savez(tmp_path / "windows.npz", x=x, y=np.array(cut.class_names)[cut.y])
    fits, answers = [], []
    for state, data, more in (("rows", home / name, words), ("windows", tmp_path / "windows.npz", [])):
        base = [home / "model.fedali", "--allow-unsigned", "--state", tmp_path / state]
        done = device("fit", *base, "--data", data, *more, "--epochs", "2", "--json", cwd=tmp_path)
        assert ("'dead' was constant in training (0.5) and is 7 here" in done.stderr) == (name == "other.csv")
        fits.append(json.loads(done.stdout))
        found = device("evaluate", *base, "--data", data, *more, "--json", cwd=tmp_path)
        fits[-1] |= {**json.loads(found.stdout), "seconds": 0}
        done = device("predict", *base, "--data", data, *more, cwd=tmp_path)
        answers.append([json.loads(line) for line in done.stdout.splitlines()])
    assert fits[0] == fits[1]
    assert fits[0]["samples"] == len(x)
    both = ["label", "probability"]
    times = [row[2] for row in table(["cyd"], seed=7)]
    assert all(answer["time"] == times[answer["row"]] and answer["rows"] == 16 for answer in answers[0])
    by_row = {answer["row"]: answer for answer in answers[0]}
    rows = [100 * (k // 100) + k % 100 for k in cut.start.tolist()]
    assert [[by_row[row][key] for key in both] for row in rows] == [
        [answer[key] for key in both] for answer in answers[1]
    ]


def test_predictions_need_no_labels(home, tmp_path):
    rows = [(time, x, y, z, dead) for _, _, time, x, y, z, dead in table(["cyd"], seed=7)]
    write(tmp_path / "new.csv", ("seconds", "x", "y", "z", "dead"), rows)
    base = [home / "model.fedali", "--allow-unsigned", "--state", tmp_path / "state"]
    done = device("predict", *base, "--data", "new.csv", cwd=tmp_path)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    # stretches between pauses: 50 rows, 100 twice, 50
    assert len(answers) == 2 * 9 + 2 * 22
    with EdgeClient.open(home / "model.fedali", tmp_path / "own", allow_unsigned=True) as client:
        values = np.array(rows, np.float32)[:, 1:]
        windows = np.stack([values[a["row"] : a["row"] + 16] for a in answers])
        expected = client.predict_proba(windows)
    assert [a["probability"] for a in answers] == expected.max(axis=1).astype(float).round(6).tolist()


def test_one_file_for_all_trains_on_its_beginning_and_tests_on_its_end(home, tmp_path):
    base = [home / "model.fedali", "--allow-unsigned", "--state", tmp_path / "state"]
    done = device("fit", *base, "--data", home / "alike.csv", "--split", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    tested = device("evaluate", *base, "--data", home / "alike.csv", "--split", "--json", cwd=tmp_path)
    assert json.loads(tested.stdout) == found["test"]
    assert 0 < found["validation"]["samples"] < found["test"]["samples"] < found["samples"]


def test_what_does_not_fit_is_one_line(home, tmp_path):
    base = ["--allow-unsigned", "--state", tmp_path / "state"]
    for data, words, line in (
        ("other.csv", [], "lacks the column 'activity' that data.columns.label names"),
        ("other.csv", OTHER[:2], "lacks the channel 'x' that the model takes"),
        ("alike.csv", ["--set", "data.gab=3"], "unknown setting data.gab; did you mean 'gap'?"),
        ("alike.csv", ["--set", "data.window=32"], "the model takes windows of 16 rows"),
    ):
        done = device(
            "fit", home / "model.fedali", *base, "--data", home / data, *words, cwd=tmp_path, code=2
        )
        assert line in complaint(done), done.stderr
