"""The command line as a user meets it: real processes, real files, real signals."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FEDALI = [str(Path(sys.executable).parent / "fedali")]
SMALL = [
    "--set",
    "partition.clients=6",
    "--set",
    "alp.num_prototypes=8",
    "--set",
    "model.options.channels=[4, 8]",
]
BRIEF = [*SMALL, "--set", "seeds=1", "--set", "methods=fedavg", "--rounds", "1"]


def fedali(*words, cwd, code=0, env=None, **options):
    done = subprocess.run(
        [*FEDALI, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **(env or {})},
        **options,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def complaint(done):
    """The one line of a failed command."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return lines[0]


def numbers(folder):
    """Every file of every run that holds numbers of the result, and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("*/seed-*/**/*"))
        if path.is_file() and path.name != "done.json"
    }


def test_version_help_and_scenarios(tmp_path):
    assert fedali("--version", cwd=tmp_path).stdout.startswith("fedali 0.")
    for words in (["-h"], ["simulate", "-h"]):
        assert "fedali simulate digits" in fedali(*words, cwd=tmp_path).stdout
    for words in (
        ["simulate"],
        ["compare"],
        ["tune"],
        ["scenarios"],
        ["export"],
        ["site"],
        ["keys", "create"],
    ):
        shown = fedali(*words, "-h", cwd=tmp_path).stdout
        assert "\\" not in shown
        assert re.search(r"\n  Examples?[^\n]*:\n    \S", shown), shown
    listed = fedali("scenarios", cwd=tmp_path).stdout
    assert all(name in listed for name in ("digits", "motionsense", "fedali-head", "fedper"))
    # Which shell it is, the program asks its parent.
    asked = ["bash", "-c", '"$0" --show-completion bash; exit $?', *FEDALI]
    assert "complete" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.lower()


def test_a_run_ends_with_a_table_and_says_where_everything_is(tmp_path):
    done = fedali("simulate", "digits", *BRIEF, cwd=tmp_path, env={"COLUMNS": "80"})
    for word in ("personalisation", "generalisation", "global", "worst", "macro", "runs/digits-"):
        assert word in done.stdout, word
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "curves.png").exists()


def test_json_is_the_only_line_of_stdout(tmp_path):
    done = fedali("simulate", "digits", *BRIEF, "--json", "--out", "here", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["folder"] == "here"
    assert {row["measure"] for row in found["table"]} == {"personalisation", "generalisation", "global"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simulate", "digit"], "no scenario called 'digit'; did you mean 'digits'?"),
        (["simulate", "digits", "--set", "training.epoch=1"], "did you mean 'epochs'?"),
        (["simulate", "digits", "--set", "epochs"], "--set takes key=value"),
        (["simulate", "digits", "--rounds", "0"], "0 is not in the range"),
        (["simulate", "digits", "--round", "1"], "No such option"),
        (["simulat"], "No such command 'simulat'"),
        (["simulate"], "which scenario? For example: fedali simulate digits"),
        (["simulate", "digits", "--resume", "x", "--out", "y"], "leave --out away"),
        (["simulate", "digits", "--profile", "--workers", "2"], "leave --resume, --workers and --track away"),
        (["simulate", "none.toml"], "cannot read scenario none.toml: No such file or directory"),
        (["simulate", "digits", "--set", "data.source=none.csv"], "none.csv"),
        (
            ["simulate", "digits", "--set", "data.source=digitz"],
            "'digitz' is no file or folder; did you mean 'digits'?",
        ),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(tmp_path, words, message):
    assert message in complaint(fedali(*words, cwd=tmp_path, code=2))
    assert not (tmp_path / "runs").exists()


def test_resuming_with_other_settings_is_refused_and_with_the_same_goes_on(tmp_path):
    fedali("simulate", "digits", *BRIEF, "--quiet", "--out", "here", cwd=tmp_path)
    words = ["simulate", "digits", *BRIEF[:-1], "2", "--resume", "here"]
    line = complaint(fedali(*words, cwd=tmp_path, code=2))
    assert "here was started with training.rounds = 1, not 2" in line
    again = fedali("simulate", "digits", *BRIEF, "--resume", "here", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["rounds"] == 1


def test_nothing_to_resume_is_one_line(tmp_path):
    assert "holds no run" in complaint(fedali("simulate", "--resume", "x", cwd=tmp_path, code=1))


@pytest.mark.slow  # it tries again, and waits in between
def test_offline_without_data_says_what_to_do(tmp_path):
    env = {"FEDALI_DATA": "", "XDG_CACHE_HOME": str(tmp_path / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    line = complaint(fedali("simulate", "motionsense", cwd=tmp_path, code=2, env=env))
    assert "set FEDALI_DATA to a folder with motionsense.npz" in line


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
from fedali.cli import main
main()
"""


def test_a_missing_extra_is_named(tmp_path):
    for module in ("typer", "torch"):
        program = WITHOUT.format(module=module)
        done = subprocess.run(
            [sys.executable, "-c", program, "simulate", "digits"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"{module} is not installed; this needs an extra: pip install 'fedali[sim]'" in complaint(done)


def test_a_disk_that_takes_no_more_is_one_line_and_nothing_is_half_written(tmp_path):
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (11_000, 11_000)
        )  # more than scenario.toml has, less than a checkpoint

    words = ["simulate", "digits", *BRIEF, "--workers", "1", "--quiet", "--out", "here"]
    line = complaint(fedali(*words, cwd=tmp_path, code=1, preexec_fn=small_files))
    assert line.startswith("fedali: cannot write here/")
    assert not list(tmp_path.rglob(".*"))
    fedali("simulate", "--resume", "here", "--quiet", cwd=tmp_path)


def test_an_own_file_with_a_fault_is_one_line(tmp_path):
    (tmp_path / "mine.csv").write_text("client,label,x\nann,walk,1\nann,walk,oops\n")
    words = ["simulate", "digits", "--set", "data.source=mine.csv", "--set", "partition.kind=natural"]
    line = complaint(fedali(*words, cwd=tmp_path, code=2))
    assert "mine.csv" in line
    assert "oops" in line


def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [*FEDALI, "simulate", "digits", *SMALL, "--rounds", "500", "--out", "here"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("here/*/seed-*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; continue with: fedali simulate --resume here" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_and_resumed_gives_the_bits_of_an_uninterrupted_run(tmp_path, workers):
    methods = {1: "fedali-head", 2: "fedali-paper,fedali-head"}[workers]
    settings = [*SMALL, "--set", "seeds=1", "--set", f"methods={methods}", "--rounds", "6"]
    settings += ["--set", "evaluation.transductive=false"]
    fedali("simulate", "digits", *settings, "--quiet", "--out", "whole", cwd=tmp_path)
    expected = numbers(tmp_path / "whole")
    chance, kills = random.Random(workers), 0
    words = ["simulate", "digits", *settings, "--out", "cut"]
    while True:
        process = subprocess.Popen(
            [*FEDALI, *words, "--workers", str(workers), "--quiet"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        scenario = tmp_path / "cut/scenario.toml"
        while not scenario.exists():
            time.sleep(0.05)
        words = ["simulate", "--resume", "cut"]
        rounds = len(list(tmp_path.glob("cut/*/seed-*/metrics/*.parquet")))
        while (
            process.poll() is None and len(list(tmp_path.glob("cut/*/seed-*/metrics/*.parquet"))) < rounds + 3
        ):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is None:
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= workers
    assert numbers(tmp_path / "cut") == expected
    tables = [
        json.loads((tmp_path / name / "results.json").read_text())["table"] for name in ("whole", "cut")
    ]
    assert json.dumps(tables[0]) == json.dumps(tables[1])


def test_a_profile_says_where_the_time_went(tmp_path):
    words = [
        *SMALL,
        "--set",
        "methods=fedali-paper,fedavg",
        "--rounds",
        "2",
        "--engine",
        "loop",
        "--out",
        "here",
    ]
    done = fedali("simulate", "digits", *words, "--profile", cwd=tmp_path)
    assert "2 rounds in one worker" in done.stdout
    shares = {room: float(share) for share, room in re.findall(r"([\d.]+)%  (.*)", done.stdout)}
    assert shares["local training"] > 10, done.stdout
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert sorted(path.name for path in (tmp_path / "here").iterdir() if path.is_dir()) == ["fedali-paper"]
    assert "pyinstrumentHTMLRenderer" in (tmp_path / "here/profile.html").read_text()
    (profile,) = json.loads((tmp_path / "here/profile.speedscope.json").read_text())["profiles"]
    assert len(profile["events"]) > 100
