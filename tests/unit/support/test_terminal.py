from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.support.terminal import printable, spell

FEDALI = str(Path(sys.executable).parent / "fedali")
CLIENT = str(Path(sys.executable).parent / "fedali-client")


@given(st.text())
def test_spelled_text_is_ascii_and_ascii_stays(text: str) -> None:
    assert spell(text).isascii()
    if text.isascii():
        assert spell(text) == text


@given(st.text())
def test_printable_text_has_no_letter_that_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not {letter for letter in shown if ord(letter) < 32} - {"\n", "\t"}
    assert not set(map(chr, (*range(127, 160), 0x202E, 0x2066))) & set(shown)
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([FEDALI, "scenarios"], 0),
        ([FEDALI, "simulate", "-h"], 0),
        ([FEDALI, "simulate", "Zoë – [bold]\x1b[2J.toml"], 2),
        ([FEDALI, "scenarios", "±"], 2),
        ([CLIENT, "info", "Zoë – [bold]\x1b[2J.fedali"], 2),
        ([CLIENT, "-h"], 0),
    ],
)
@pytest.mark.parametrize("columns", ["30", "80"])
def test_commands_survive_an_output_of_ascii_alone(
    words: list[str], code: int, columns: str, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "PYTHONIOENCODING": "ascii:strict",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "COLUMNS": columns,
    }
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == code, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    if code:
        assert len(done.stderr.splitlines()) == 1
        assert b"[bold]" in done.stderr or b"+-" in done.stderr
