"""Provisioning that is killed at any moment, or done twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits import members

KILLED = """
import os, sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from tests.kits import federation, provisioned
from fedali_server.provisioning.certificates import is_issued_by, load_pair
from fedali_server.provisioning.provision import provision
from fedali.wire.kit import SiteKit, read_kit

def interrupted(at, out, renew):
    # does it in a process that ends without warning before it renames a file for the ``at``-th time
    child = os.fork()
    if child == 0:
        seen = 0
        def hook(event, words):
            nonlocal seen
            if event == "os.rename":
                seen += 1
                if seen == at:
                    os._exit(9)
        sys.addaudithook(hook)
        provision(federation(), out, renew=renew)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

def check(out):
    for folder in out.iterdir():
        if folder.name != "authority":
            kit = read_kit(folder)
            name = {"operator": "operators"}.get(folder.name, "devices" if "device" in folder.name else "servers")
            authority = load_pair(*[out / "authority" / f"{name}.key"] * 2)
            assert is_issued_by(load_pair(kit.certificate, kit.key).certificate, authority), (out, folder)
            if isinstance(kit, SiteKit):
                key = load_ssh_private_key(kit.node_key.read_bytes(), None).public_key()
                public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
                assert public == (out / f"server/nodes/{kit.name}.pub").read_bytes().strip()
            if folder.name == "server":
                assert kit.operators_authority.read_bytes() == (out / "authority/operators.pem").read_bytes()
    assert not [path for path in out.rglob(".*") if path.name != ".lock" and path.suffix == ".pem"]

base, renew, at, times = Path(sys.argv[1]), sys.argv[2:], 1, 0
while True:
    out = base / str(at)
    if renew:
        provisioned(federation(), out)
    if not interrupted(at, out, renew):
        break
    provision(federation(), out)
    check(out)
    at, times = at + (1 if renew else 4), times + 1
print(times)
"""


@pytest.mark.parametrize("renew", [[], ["device-1", "site-a", "server", "operator"]])
def test_killed_at_any_moment_the_same_command_makes_it_whole(tmp_path, renew):
    command = [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path), *renew]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_two_at_once_make_one_federation(tmp_path):
    out = tmp_path / "kits"
    program = "import sys; from pathlib import Path; from tests.kits import *; provisioned(federation(), Path(sys.argv[1]))"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", program, str(out)]
    both = [
        subprocess.Popen(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert members(out) == {f"device-{number}": number for number in range(5)}
