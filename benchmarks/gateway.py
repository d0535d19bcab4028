"""``make bench-gateway``: one gateway process on one core, and 50 to 500 devices on loopback over mutual TLS.

Each number of devices gets a fresh gateway. The devices are one process on the other cores; they have no training to do, and
move a model of a million float32 parameters each way in each round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks import gateway_report
from benchmarks.gateway_devices import Order
from benchmarks.measure import machine, versions
from benchmarks.processes import ROOT
from fedali.wire.kit import OperatorKit, read_kit_as
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from fedali_simulations.federate.ports import free_ports

_PACKAGES = ("grpcio", "protobuf", "numpy", "cryptography")


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    results: dict[str, Any] = {
        "machine": machine(),
        "versions": {"python": sys.version.split()[0], **versions(*_PACKAGES)},
        "rounds": options.rounds,
        "cores": {"gateway": 1, "devices": max(1, len(cores) - 1)},
        "runs": [],
    }
    with tempfile.TemporaryDirectory(prefix="fedali-") as scratch:
        place = _Place(Path(scratch), max(options.devices))
        results["model"] = place.model
        for devices in options.devices:
            run = place.run(devices, options.rounds, cores)
            results["runs"].append(run)
            print(gateway_report.line(run), flush=True)
    gateway_report.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    gateway_report.write()
    print(gateway_report.verdict(results))


class _Place:
    """Kits and a bundle in ``folder``."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.folder, self.port = folder, free_ports(1)[0]
        names = [f"d-{n:04}" for n in range(devices)]
        site = {"name": "site", "address": f"127.0.0.1:{self.port}", "devices": names}
        server = {"address": "127.0.0.1:9092"}
        config = FederationConfig.model_validate({"name": "bench", "server": server, "sites": [site]})
        self.kits = folder / "kits"
        provision(config, self.kits)
        operator = read_kit_as(self.kits / "operator", OperatorKit)
        self.bundle = folder / "model.fedali"
        made = _module("gateway_bundle", str(self.bundle), str(operator.signing_key))
        self.model = {**made, "bundle_bytes": self.bundle.stat().st_size}

    def run(self, devices: int, rounds: int, cores: list[int]) -> dict[str, Any]:
        """What ``devices`` devices saw of a gateway of their own."""
        state, relay = self.folder / f"state-{devices}", self.folder / f"{devices}.sock"
        self.folder.chmod(0o700)
        words = [self.kits / "site", "--state", state, "--socket", relay]
        gateway = subprocess.Popen(
            [sys.executable, "-m", "fedali_server.gateway", *map(str, words)],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]),
        )
        said: list[str] = []
        listening = threading.Event()
        reader = threading.Thread(target=_read, args=(gateway, said, listening), daemon=True)
        reader.start()
        try:
            if not listening.wait(60) or gateway.poll() is not None:
                raise SystemExit("the gateway did not start:\n" + "".join(said))
            order = Order(str(self.kits), devices, str(self.bundle), str(relay), gateway.pid, rounds)
            found = _module("gateway_devices", order.to_json(), cores=cores[1:] or cores)
        finally:
            gateway.terminate()
            gateway.wait(60)
            reader.join(60)
        if any('"level": "error"' in line or '"level": "warning"' in line for line in said):
            raise SystemExit("the gateway had faults:\n" + "".join(said))
        return {"devices": devices, **found}


def _read(gateway: subprocess.Popen[str], said: list[str], listening: threading.Event) -> None:
    assert gateway.stderr is not None
    with gateway.stderr as stream:
        for line in stream:
            said.append(line)
            if line.startswith("gateway listening"):
                listening.set()
    listening.set()


def _module(name: str, *arguments: str, cores: list[int] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
