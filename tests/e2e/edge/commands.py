"""The command of the edge client, and the state that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys

from fedali.bundle.file import read_bundle
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import boot_id

CLIENT = [sys.executable, "-m", "fedali_client"]


def client(*words, cwd, code=0, **options):
    done = subprocess.run(
        [*CLIENT, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def complaint(done):
    """The one line of a failed command."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def look(home, folder):
    """The state in ``folder`` as another process sees it."""
    bundle = read_bundle(home / "m.fedali", None, allow_unsigned=True)
    return PersonalState(folder / bundle.digest[:16], bundle, read_only=True)


def unplug(folder):
    """The machine starts again: the mapped file is of another boot, and what it held is anything."""
    (path,) = folder.glob("*/training.map")
    data = bytearray(path.read_bytes().replace(boot_id(), b"2" * 36))
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
