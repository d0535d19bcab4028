"""`fedali tune` as a user meets it: real processes, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.e2e.test_cli import FEDALI, SMALL, complaint, fedali


@pytest.mark.slow
def test_a_search_killed_and_resumed_finds_the_same_and_its_file_is_compared(tmp_path):
    words = [
        "tune",
        "digits",
        "--method",
        "fedprox",
        *SMALL,
        "--budget",
        "3",
        "--seeds",
        "1",
        "--rounds",
        "2",
    ]
    whole = fedali(*words, "--out", "whole", "--json", cwd=tmp_path)
    process = subprocess.Popen(
        [*FEDALI, *words, "--out", "cut", "--quiet"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    while len(list(tmp_path.glob("cut/*/seed-*/metrics/*.parquet"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut/found.toml").exists()
    shown = fedali("tune", "--resume", "cut", cwd=tmp_path, env={"COLUMNS": "80"})
    assert "what was found: cut/found.toml" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert (tmp_path / "cut/trials.csv").read_text() == (tmp_path / "whole/trials.csv").read_text()
    assert (tmp_path / "cut/found.toml").read_text() == (tmp_path / "whole/found.toml").read_text()
    found = json.loads(whole.stdout)
    assert found["value"] >= found["value_before"]
    words = [
        "cut/found.toml",
        "digits",
        *SMALL,
        "--set",
        "training.rounds=2",
        "--methods",
        "fedavg,fedprox",
        "--seeds",
        "2",
    ]
    compared = fedali("compare", *words, "--json", "--out", "both", cwd=tmp_path)
    (note,) = [
        note for note in json.loads(compared.stdout)["notes"] if note.startswith("fedprox trains")
    ] or [""]
    assert (str(found["settings"]["training.learning_rate"]) in note) == (
        found["settings"]["training.learning_rate"] != 0.003
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what? For example: fedali tune digits --method fedprox"),
        (["digits"], "what? For example: fedali tune digits --method fedprox"),
        (["digits", "--method", "fedpox"], "unknown method 'fedpox'; did you mean 'fedprox'?"),
        (["digits", "--method", "fedprox", "--search", "mu"], "--search takes KEY=LOW:HIGH"),
        (
            ["digits", "--method", "fedprox", "--first-seed", "1"],
            "seeds 1, 2 are among those that the scenario reports (0, 1)",
        ),
        (
            ["digits", "--method", "fedprox", "--measure", "loss"],
            "--measure takes both, personalisation, generalisation, global",
        ),
        (["--resume", "x", "--method", "fedprox"], "leave the others away"),
    ],
)
def test_wrong_words_are_one_line(tmp_path, words, message):
    assert message in complaint(fedali("tune", *words, cwd=tmp_path, code=2))
    assert not (tmp_path / "runs").exists()
