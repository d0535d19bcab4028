"""Where things are kept for users with no home folder, or one that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bundles import write_full

NOBODY = """import pwd
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""  # a container's user without an entry


def tell(tmp_path, code, home=None, **given):
    """What Python says to ``code`` for a user with that home folder, or with none."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    away = ("HOME", "XDG_CACHE_HOME", "FEDALI_CACHE", "MPLCONFIGDIR")
    env = {name: value for name, value in os.environ.items() if name not in away}
    env |= {"HOME": home} if home else {"PYTHONPATH": str(tmp_path / "site")}
    env |= {"TMPDIR": str(tmp_path / "tmp"), **given}
    return subprocess.run([sys.executable, *code], env=env, capture_output=True, text=True, cwd=tmp_path)


WHERE = ["-c", "from fedali.support.places import cache_folder as f; print(f('onnx')); print(f('onnx'))"]


@pytest.mark.parametrize(
    ("home", "why"), [(None, "this user has no home folder"), ("/proc", "No such file or directory")]
)
def test_a_cache_that_has_no_place_is_a_temporary_one_and_that_is_said_once(tmp_path, home, why):
    done = tell(tmp_path, WHERE, home)
    place = tmp_path / "tmp" / f"fedali-{os.getuid()}"
    assert done.stdout.splitlines() == [str(place / "onnx")] * 2
    assert done.stderr.count("\n") == 1
    assert f"{why}; using {place}. FEDALI_CACHE=DIR gives another place" in done.stderr
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_cache_is_where_the_user_says(tmp_path):
    done = tell(tmp_path, WHERE, FEDALI_CACHE=str(tmp_path / "mine"))
    assert done.stdout.splitlines() == [str(tmp_path / "mine" / "onnx")] * 2
    assert done.stderr == ""
    done = tell(tmp_path, WHERE, FEDALI_CACHE="/proc/mine")
    assert done.stderr.splitlines()[-1].endswith(
        "FEDALI_CACHE is /proc/mine: No such file or directory; set it to a folder that can be written"
    )


def test_a_temporary_cache_that_others_can_write_to_is_not_taken(tmp_path):
    place = tmp_path / "tmp" / f"fedali-{os.getuid()}"
    place.mkdir(parents=True)
    place.chmod(0o777)
    done = tell(tmp_path, WHERE)
    assert done.returncode == 1
    assert f"{place} is no folder of this user's; set FEDALI_CACHE=DIR" in done.stderr


@pytest.mark.parametrize(
    "command", [["info", "m.fedali"], ["fit", "m.fedali", "--data", "x.npz"], ["join", "kit"]]
)
def test_a_client_without_a_home_says_which_option_places_its_state(tmp_path, command):
    if command[0] == "join":
        command = [*command, "--data", "x.npz"]
    done = tell(tmp_path, ["-m", "fedali_client", *command])
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    if command[0] != "join":  # reads its kit first
        assert "~/.fedali: this user has no home folder; give one with --state DIR" in done.stderr


def test_a_client_with_a_home_that_cannot_be_written_says_so(tmp_path):
    bundle_path = tmp_path / "small.fedali"
    write_full(bundle_path)
    done = tell(
        tmp_path, ["-m", "fedali_client", "fit", bundle_path, "--allow-unsigned", "--data", "x.npz"], "/proc"
    )
    assert done.returncode == 1
    assert "cannot make the folder /proc/.fedali/" in done.stderr
    assert done.stderr.rstrip().endswith("give another for the state")
