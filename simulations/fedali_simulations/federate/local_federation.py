"""A whole federation on this machine: certificates, server, sites with gateways and devices, each a process of its own.

Everything is in one folder, and what runs is what runs in a real deployment, on the loopback interface:

    federation.toml   who takes part
    kits/             what `fedali provision` makes of it
    data/             each device's own samples: train, validation and test, as .npz
    devices/          what each device keeps
    logs/             what each process said
    run/              what `fedali run` leaves
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from fedali.data import Federation
from fedali.errors import FedaliError, SettingsError
from fedali.support.files import atomic, write_text
from fedali.wire.kit import OperatorKit, read_kit_as
from fedali_server.provisioning.federation_file import read_federation
from fedali_server.provisioning.provision import provision
from fedali_simulations.federate.ports import free_ports

_PATIENCE = 60.0  # seconds for a process to end, or to say that it is ready
_PARTS = ("train", "validation", "test")


@dataclass
class Process:
    """A process of the federation, and the file of what it says."""

    name: str
    words: tuple[str, ...]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    folders: tuple[Path, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Begin, in a process group of its own: Ctrl-C in the terminal is for this process. It ends when this one does."""
        self._close()
        with self.log.open("ab") as stream:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "fedali_server.child", *self.words],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={**os.environ, **self.extra},
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.running is not None and self.running.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if self.running is not None and self.alive:
            self.running.send_signal(number)

    def kill_all(self) -> None:
        """SIGKILL to the process and all that it started."""
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait()
            self._close()

    def end(self, seconds: float = _PATIENCE) -> None:
        """Wait for its end; SIGKILL after ``seconds``."""
        if self.running is None:
            return
        try:
            self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
        self._close()

    def _close(self) -> None:
        if self.running is not None and self.running.stdin is not None:
            self.running.stdin.close()

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


class LocalFederation:
    """Server, sites and devices in ``folder``; started by ``with``, and ended with it.

    Args:
        folder: for everything.
        federation: clients with their data; each becomes a device.
        clients: indices of those that take part.
        sites: to spread them over.
        name: of the federation.
    """

    def __init__(
        self, folder: Path, federation: Federation, clients: Sequence[int], sites: int, name: str = "local"
    ) -> None:
        if not 1 <= sites <= len(clients):
            raise SettingsError(f"{sites} sites for {len(clients)} devices: give each site at least one")
        self.folder, self.name = folder.absolute(), name
        self.devices = [_device_name(index) for index in range(len(clients))]
        self._parts = [part.tolist() for part in np.array_split(np.arange(len(clients)), sites)]
        self.sites = [f"site-{chr(ord('a') + i)}" if sites <= 26 else f"site-{i}" for i in range(sites)]
        self._federation, self._clients = federation, list(clients)
        self.processes: dict[str, Process] = {}

    def provision(self) -> None:
        """Write data and kits; what is there already stays."""
        for folder in ("data", "devices", "logs"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for device, client in zip(self.devices, self._clients, strict=True):
            self._write_data(device, client)
        file = self.folder / "federation.toml"
        if not file.exists():
            write_text(file, self._toml())
        provision(read_federation(file), self.folder / "kits")

    @property
    def operator(self) -> OperatorKit:
        """The operator's kit."""
        return read_kit_as(self.kit("operator"), OperatorKit)

    def kit(self, name: str) -> Path:
        """The folder of a kit."""
        return self.folder / "kits" / name

    @property
    def sockets(self) -> dict[str, Path]:
        """Where gateways can be asked what their devices are at, by site."""
        return {site: self.kit(site) / "state" / "relay.sock" for site in self.sites}

    def __enter__(self) -> LocalFederation:
        try:
            self.start("server", "fedali", "server", "start", str(self.kit("server")))
            for site in self.sites:
                self.start(site, "fedali", "site", "start", str(self.kit(site)))
            for device in self.devices:
                self.start_device(device)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *words: str) -> Process:
        """Start a process, or start it again."""
        process = self.processes.get(name)
        if process is None:
            process = Process(name, words, self.folder / "logs" / f"{name}.log")
            process.extra = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
            self.processes[name] = process
        process.start()
        return process

    def start_device(self, device: str) -> Process:
        """Start a device, or start it again."""
        files = [word for part in _PARTS for word in (f"--{part}", self._data(device, part))]
        files[0] = "--data"
        state = str(self.folder / "devices" / device)
        layout = {2: ("--set", "data.layout=tc"), 3: ("--set", "data.layout=chw")}
        as_stored = layout.get(len(self._federation.input_shape), ())
        words = (
            "fedali_client",
            "join",
            str(self.kit(device)),
            *map(str, files),
            *as_stored,
            "--state",
            state,
        )
        return self.start(device, *words)

    def check(self) -> None:
        """Raise ``FedaliError`` when a process has ended by itself; the message has its last words."""
        for process in self.processes.values():
            if process.running is not None and process.running.poll() is not None:
                last = process.said().strip().splitlines() or ["nothing"]
                raise FedaliError(
                    f"{process.name} ended with code {process.running.returncode}: {last[-1]} (all of it: {process.log})"
                )

    def stop(self) -> None:
        """End all: devices first, then sites, then the server, so that each can say goodbye."""
        with ExitStack() as rest:
            for process in self.processes.values():
                rest.callback(process.kill_all)
            for group in (self.devices, self.sites, ["server"]):
                for name in group:
                    if name in self.processes:
                        self.processes[name].signal(signal.SIGTERM)
                deadline = time.monotonic() + _PATIENCE
                for name in group:
                    if name in self.processes:
                        self.processes[name].end(max(0.1, deadline - time.monotonic()))

    def _data(self, device: str, part: str) -> Path:
        return self.folder / "data" / device / f"{part}.npz"

    def _write_data(self, device: str, client: int) -> None:
        """A device's own samples, raw: it normalises them as its bundle says."""
        owner, names = self._federation.clients[client], np.array(self._federation.class_names)
        (self.folder / "data" / device).mkdir(exist_ok=True)
        for part in _PARTS:
            with atomic(self._data(device, part)) as temporary, temporary.open("wb") as stream:
                np.savez(stream, x=getattr(owner, f"x_{part}"), y=names[getattr(owner, f"y_{part}")])

    def _toml(self) -> str:
        """``federation.toml`` on free ports of the loopback interface."""
        ports = [f"127.0.0.1:{port}" for port in free_ports(2 + len(self.sites))]
        lines = [f'name = "{self.name}"', "", "[server]"]
        lines += [f'{key} = "{ports[0]}"' for key in ("listen", "address")]
        lines += [f'operators_{key} = "{ports[1]}"' for key in ("listen", "address")]
        for site, part, port in zip(self.sites, self._parts, ports[2:], strict=True):
            devices = ", ".join(f'"{self.devices[index]}"' for index in part)
            lines += ["", "[[sites]]", f'name = "{site}"', f'listen = "{port}"', f'address = "{port}"']
            lines += [f"devices = [{devices}]"]
        return "\n".join(lines) + "\n"


def _device_name(index: int) -> str:
    return f"device-{index}"
