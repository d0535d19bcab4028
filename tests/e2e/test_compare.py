"""`fedali compare` as a user meets it: real processes, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.e2e.test_cli import FEDALI, SMALL, complaint, fedali

QUICK = [*SMALL, "--set", "evaluation.transductive=false", "--methods", "fedavg,local"]


def without_times(text):
    found = json.loads(text)
    found["rows"] = [row for row in found["rows"] if row["measure"] != "compute"]
    return {key: value for key, value in found.items() if key != "folders"}


@pytest.mark.slow
def test_a_comparison_killed_and_resumed_is_that_of_an_uninterrupted_one(tmp_path):
    words = ["compare", "digits", *QUICK, "--seeds", "2", "--rounds", "5"]
    whole = fedali(*words, "--out", "whole", "--json", cwd=tmp_path)
    process = subprocess.Popen(
        [*FEDALI, *words, "--out", "cut", "--quiet"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    while len(list(tmp_path.glob("cut/*/seed-*/metrics/*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut/compare.json").exists()
    assert "is not complete" in complaint(fedali("compare", "cut", cwd=tmp_path, code=1))
    fedali("compare", "--resume", "cut", "--quiet", cwd=tmp_path)
    cut = (tmp_path / "cut/compare.json").read_text()
    assert without_times(cut) == without_times(whole.stdout)
    again = fedali("compare", "cut", "--against", "local", cwd=tmp_path, env={"COLUMNS": "80"})
    assert max(map(len, again.stdout.splitlines()[:-1])) <= 80
    assert "compared with local" in again.stdout
    assert json.loads((tmp_path / "cut/compare.json").read_text())["against"] == "local"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what? For example: fedali compare digits"),
        (["digits", "--methods", "fedavg,fedpox"], "unknown method 'fedpox'; did you mean 'fedprox'?"),
        (["digits", "--methods", "fedavg"], "two methods at least"),
        (["digits", "--against", "moon"], "no method 'moon' to compare with"),
        (["digit"], "no scenario called 'digit'; did you mean 'digits'?"),
        (
            ["digits", "motionsense"],
            "cannot be compared: data.source is 'digits' there and 'motionsense' here",
        ),
        (["."], ". is a folder, and holds no run"),
        (["--resume", "x", "--seeds", "3"], "leave the others away"),
    ],
)
def test_wrong_words_are_one_line(tmp_path, words, message):
    assert message in complaint(fedali("compare", *words, cwd=tmp_path, code=2))
    assert not (tmp_path / "runs").exists()
