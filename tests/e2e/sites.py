"""A server and its sites as real processes, without devices."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from fedali.bundle import keys
from fedali.bundle.file import write_bundle
from fedali.wire.kit import OperatorKit, ServerKit, read_kit_as
from fedali_server.flower.link import Link
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from tests import small_bundles
from tests.gateways import free_port

ANSWER = 60.0  # seconds: an answer that takes as long is a failure, on any machine
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
BIN = Path(sys.executable).parent


class Process:
    """A process, and the lines that it says."""

    def __init__(self, *words, folder, extra=None):
        self.process = subprocess.Popen(
            list(map(str, words)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **QUIET, **(extra or {})},
        )
        self.lines, self._told = [], threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self.process.stdout as stream:
            for line in stream:
                with self._told:
                    self.lines.append(line)
                    self._told.notify_all()
        with self._told:
            self.lines.append("")
            self._told.notify_all()

    def wait_for(self, words, times=1):
        """Wait until it has said a line with ``words`` so many times."""

        def there():
            return sum(words in line for line in self.lines) >= times or self.lines[-1:] == [""]

        with self._told:
            assert self._told.wait_for(there, ANSWER), self.said
        assert sum(words in line for line in self.lines) >= times, self.said
        return self

    @property
    def said(self):
        return "".join(self.lines)

    def kill(self, number=signal.SIGKILL):
        """A signal, and what it ends with."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(ANSWER)
        self._reader.join(ANSWER)
        return code

    def child(self, module):
        """The process id of its child that runs a module."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.process.pid and module.encode() in words:
                return int(path.name)
        return None


class Place:
    """A provisioned federation of three sites; its server and its first site run."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(5)]
        listen, operators = addresses[:2]
        self.config = {
            "name": "wards",
            "server": {
                **{"address": listen, "listen": listen},
                **{"operators_address": operators, "operators_listen": operators},
            },
            "sites": [
                {"name": f"site-{name}", "address": address, "devices": [f"{name}-0", f"{name}-1"]}
                for name, address in zip("abc", addresses[2:], strict=True)
            ],
        }
        self.provision()
        self.operator = read_kit_as(self.kit("operator"), OperatorKit)
        self.server_kit = read_kit_as(self.kit("server"), ServerKit)
        self.link = Link.of_operator(self.operator)
        self.bundle = self.make_bundle()

    def provision(self):
        provision(FederationConfig.model_validate(self.config), self.folder / "kits")

    def make_bundle(self):
        path = self.folder / "model.fedali"
        signer = keys.load_private(self.operator.signing_key)
        write_bundle(path, small_bundles.fields(), small_bundles.parts(), signer)
        return path.read_bytes()

    def kit(self, name):
        return self.folder / "kits" / name

    def start(self, *words, **options):
        process = Process(*words, folder=self.folder, **options)
        self.processes.append(process)
        return process

    def start_server(self):
        self.server = self.start(BIN / "fedali", "server", "start", self.kit("server"))
        return self.server.wait_for("is ready: sites at")

    def start_site(self, name="site-a", **options):
        return self.start(BIN / "fedali", "site", "start", self.kit(name), **options)

    def end(self):
        for process in reversed(self.processes):
            process.kill(signal.SIGTERM)

    def config_of_run(self, name, seconds=600.0):
        plain = {"run": name, "bundle": hashlib.sha256(self.bundle).hexdigest(), "epochs": 1, "seed": 7}
        return {
            **plain,
            "encoding": 1,
            "largest_samples": 0,
            **{"seconds": seconds, "quorum": 1.0, "grace_seconds": 0.0, "largest_step": 0.0},
        }

    def nodes(self, grid, name):
        """The number of the node of a site."""
        (number,) = [node.node_id for node in grid.get_nodes() if node.name == name]
        return number
