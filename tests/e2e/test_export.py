"""From a run to a device: real processes make keys and bundles, and a device refuses what is not theirs."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

from fedali.bundle.file import read_bundle
from fedali.bundle.keys import load_public
from tests.e2e.test_cli import BRIEF, complaint, fedali

CLIENT = str(Path(sys.executable).parent / "fedali-client")


def device(*words, cwd, code=0):
    done = subprocess.run([CLIENT, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_a_run_becomes_a_bundle_that_devices_with_the_key_accept(tmp_path):
    made = fedali("keys", "create", "site", "--out", "keys", cwd=tmp_path).stdout
    assert "keys/site.key" in made
    private = tmp_path / "keys" / "site.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    public = load_public(tmp_path / "keys/site.pub")
    shown = fedali("keys", "show", "keys/site.key", cwd=tmp_path)
    assert shown.stdout == (tmp_path / "keys/site.pub").read_text()
    assert public.fingerprint in shown.stderr
    assert "never overwritten" in complaint(
        fedali("keys", "create", "site", "-o", "keys", cwd=tmp_path, code=2)
    )

    fedali("simulate", "digits", *BRIEF, "-q", "--out", "run", cwd=tmp_path)
    done = fedali(
        "export", "run", "--mode", "head", "--key", "keys/site.key", "-o", "out/watch.fedali", cwd=tmp_path
    )
    for word in ("train.onnx", "embed.onnx", "infer.onnx", "from torch", "signed by", "mode head"):
        assert word in done.stdout, word
    path = tmp_path / "out" / "watch.fedali"
    assert read_bundle(path, [public]).signed_by == public.fingerprint
    device("verify", path, "--key", tmp_path / "keys/site.pub", cwd=tmp_path)

    fedali("keys", "create", "other", cwd=tmp_path)
    device("verify", path, "--key", "other.pub", cwd=tmp_path, code=2)
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken.fedali").write_bytes(broken)
    device("verify", "broken.fedali", "--key", tmp_path / "keys/site.pub", cwd=tmp_path, code=2)

    done = fedali("export", "run/fedavg/seed-0", "--mode", "head", "--json", cwd=tmp_path)
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["signed_by"] is None
    assert facts["bytes"] == (tmp_path / "model.fedali").stat().st_size
    assert all(parity["error"] <= 1e-5 for parity in facts["parity"].values())
    device("verify", "model.fedali", "--key", tmp_path / "keys/site.pub", cwd=tmp_path, code=2)


def test_wrong_words_are_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    fedali("keys", "create", "site", cwd=tmp_path)
    for words, message, code in (
        (["export", "nowhere"], "nowhere holds no run", 1),
        (["export", "folder", "--mode", "ful"], "unknown mode 'ful'; did you mean 'full'?", 2),
        (["export", "folder", "--out", "folder"], "folder is a folder: give the file", 2),
        (["export", "folder", "--batch", "0"], "--batch", 2),
        (["keys", "show", "folder"], "cannot read the public key folder", 2),
        (["keys", "create", "a b"], "no name for a key", 2),
        (["keys", "make"], "No such command 'make'", 2),
    ):
        assert message in complaint(fedali(*words, cwd=tmp_path, code=code)), words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "site.key", "site.pub"]
