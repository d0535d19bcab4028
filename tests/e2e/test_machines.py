"""A simulation over sites on a SuperLink, as several machines would run it: real processes on loopback.

Also the tripwire for what ``fedali_server.flower.node`` and ``fedali_server.flower.superlink`` take from inside Flower.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
SETTINGS = [
    *("--set", "partition.clients=6", "--set", "alp.num_prototypes=8", "--set", "seeds=1"),
    *("--set", "model.options.channels=[4, 8]", "--set", "evaluation.transductive=false", "--set", "sites=2"),
]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def certificates(folder):
    """Of an authority, in ``ca.pem``, and of a server at 127.0.0.1 that it signed: ``server.pem``, ``server.key``."""
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("our CA", "server")]
    use = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for i, (file, extensions) in enumerate([("ca.pem", [use]), ("server.pem", [address])]):
        made = x509.CertificateBuilder(
            names[0],
            names[i],
            keys[i].public_key(),
            x509.random_serial_number(),
            now,
            now + datetime.timedelta(1),
        ).add_extension(x509.BasicConstraints(ca=i == 0, path_length=None), critical=True)
        for extension in extensions:
            made = made.add_extension(extension, critical=False)
        signer = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
        made = made.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(keys[i].public_key()), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
        )
        signed = made.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Place:
    """A SuperLink and whatever else runs in a folder; all of it ends with the test."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def start(self, *words):
        said = self.folder / f"said-{len(self.processes)}.txt"
        with said.open("w") as stream:
            process = subprocess.Popen(
                [str(BIN / words[0]), *map(str, words[1:])],
                cwd=self.folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET},
            )
        process.said = said
        self.processes.append(process)
        return process

    def superlink(self, *trust):
        words = [*(trust or ["--insecure"]), "--host", "127.0.0.1", "--port", self.port]
        words += ["--isolation", "process"]
        process = self.start("flower-superlink", *words)
        while not self.answers():
            assert process.poll() is None
            time.sleep(0.1)

    def answers(self):
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0

    def site(self, part, *words):
        return self.start("fedali", "site", "--superlink", self.address, "--part", part, *words)

    def simulate(self, *words, code=0):
        done = subprocess.run(
            [str(BIN / "fedali"), "simulate", *map(str, words), "--quiet"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def rounds(self, out):
        return len(list(self.folder.glob(f"{out}/*/seed-0/metrics/*.parquet")))

    def wait_for_rounds(self, out, rounds, process):
        while self.rounds(out) < rounds:
            assert process.poll() is None
            time.sleep(0.02)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.end()


def results(folder):
    """Every file that holds numbers of a result, but the checkpoint: there clients' records are the sites' business."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("*/seed-*/**/*"))
        if path.is_file()
        and path.name not in ("done.json", "checkpoint.safetensors", "clients.f32", "clients.json")
    }


def same_results(one, other):
    assert results(one) == results(other)
    for path in one.glob("*/seed-*/checkpoint.safetensors"):
        ours, theirs = load_file(path), load_file(other / path.relative_to(one))
        for name in ("shared.theta", "shared.prototypes"):
            assert ours[name].tobytes() == theirs[name].tobytes()
    tables = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    assert json.dumps(tables[0]["table"]) == json.dumps(tables[1]["table"])
    assert tables[0].get("unseen") == tables[1].get("unseen")


def test_over_two_sites_every_number_is_that_of_one_process(place):
    settings = ["digits", *SETTINGS, "--set", "methods=fedali-head,fedavg", "--rounds", "3"]
    settings += ["--set", "training.participation=0.5", "--set", "evaluation.unseen_clients=1"]
    certificates(place.folder)
    place.superlink(
        "--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"
    )
    trust = ["--root-certificates", "ca.pem"]
    sites = [place.site(part, *trust) for part in ("1/2", "2/2")]
    place.simulate(*settings, "--out", "whole")
    place.simulate(*settings, "--out", "spread", "--superlink", place.address, *trust)
    same_results(place.folder / "whole", place.folder / "spread")
    assert results(place.folder / "whole")
    for site in sites:
        site.terminate()
        assert site.wait(timeout=60) == 0
        assert "has left" in site.said.read_text()
    (place.folder / "others").mkdir()
    certificates(place.folder / "others")
    stranger = place.site("1/2", "--root-certificates", "others/ca.pem")
    assert stranger.wait(timeout=60) == 1
    (line,) = stranger.said.read_text().splitlines()
    assert line.startswith(f"fedali: no SuperLink answers at {place.address}")
    assert "certificate verify failed" in line


def test_a_site_that_leaves_and_a_server_that_is_killed_change_no_number(place):
    settings = ["digits", *SETTINGS, "--set", "methods=fedali-head", "--rounds", "8"]
    settings += ["--set", "training.participation=0.5"]
    place.simulate(*settings, "--out", "whole")
    place.superlink()
    place.site("1/2")
    leaving = place.site("2/2")
    server = place.start(
        "fedali", "simulate", *settings, "--quiet", "--out", "spread", "--superlink", place.address
    )
    place.wait_for_rounds("spread", 2, server)
    leaving.terminate()
    assert leaving.wait(timeout=60) == 0
    place.site("2/2")
    place.wait_for_rounds("spread", 4, server)
    server.kill()
    server.wait()
    assert place.rounds("spread") < 8
    place.simulate("--resume", "spread")
    same_results(place.folder / "whole", place.folder / "spread")


def test_what_cannot_work_is_said_in_one_line(place):
    brief = ["digits", *SETTINGS, "--set", "methods=fedavg", "--rounds", "1"]
    over = ["--superlink", place.address]
    assert "no SuperLink answers at" in place.simulate(*brief, "--out", "a", *over, code=1).stderr
    line = place.simulate(*brief, "--superlink", "10.0.0.1:9092", code=2).stderr
    assert "10.0.0.1 is another machine: give --root-certificates" in line
    place.superlink()
    place.site("1/3")
    line = place.simulate(*brief, "--out", "b", *over, code=1).stderr
    assert "the run has 2 sites, this is part 1 of 3: give --sites 3" in line
    second = place.site("1/3")
    assert second.wait(timeout=60) == 1
    assert "another site uses sites/1-of-3" in second.said.read_text()
    place.simulate(*brief, "--out", "c")
    line = place.simulate("--resume", "c", *over, code=2).stderr
    assert "continue it without --superlink" in line
