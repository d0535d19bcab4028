"""Devices that joined a gateway, each a process; and what they would do undisturbed, in this one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np

from fedali.wire import messages as wire
from fedali.wire.kit import FILE
from fedali.wire.messages import ClientUpdate
from fedali.wire.tensors import Encoding
from fedali_client import EdgeClient
from tests.bundles import toy_data
from tests.gateways import ANSWER

SAMPLES = 60
# A device's, which has no flwr: importing that, as other tests do here, sets the verbosity of this process's children.
_CLEAN = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}


class Joined:
    """A device process; its events are read as they come."""

    def __init__(
        self, site, index, *words, kit=None, program=("-m", "fedali_client"), test=True, **environment
    ):
        folder = site.folder
        for part, seed in (("train", index), ("test", 50 + index)):
            path = folder / f"{part}-{index}.npz"
            if not path.exists():
                x, y = toy_data(SAMPLES, seed)
                np.savez(path, x=x, y=y)
        self.state = folder / f"state-{index}"
        files = ["--data", folder / f"train-{index}.npz"]
        files += ["--test", folder / f"test-{index}.npz"] if test else []
        command = ["join", kit or site.kits / f"a-{index}", *files, "--state", self.state, "--json", *words]
        self.process = subprocess.Popen(
            [sys.executable, *program, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**_CLEAN, **environment},
        )
        self.events, self._news, self._closed = [], threading.Condition(), False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def event(self, name, nth=1, **facts):
        """Wait for the n-th event with these facts; what it is."""

        def found():
            return [e for e in self.events if e["event"] == name and facts.items() <= e.items()]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= nth or self._closed, ANSWER), self.events
            assert len(found()) >= nth, self.events
            return found()[nth - 1]

    def end(self, number=signal.SIGTERM):
        """End it; its exit code, and what it said to people."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(ANSWER)
        self._reader.join(ANSWER)
        self.process.stdout.close()
        with self.process.stderr as stream:
            return code, stream.read()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None or not self.process.stdout.closed:
            self.end(signal.SIGKILL if self.process.poll() is None else None)


class Undisturbed:
    """What a device would do, in this process."""

    def __init__(self, site, index, encoding=Encoding.FLOAT32):
        self.site, self.index, self.encoding, self.residual = site, index, encoding, None
        self.client = EdgeClient.open(
            site.folder / "m.fedali", site.folder / f"expected-{index}", trusted_key=site.kit.trusted_key
        )
        self.x, self.y = toy_data(SAMPLES, index)

    def round(self, number, epochs):
        """Theta [S], prototypes [L] and metrics as the gateway has them after a round."""
        site, order = self.site, self.site.order(number)
        reference = site.start_state.theta[site.shared]
        self.client.receive(reference, site.start_state.prototypes, number, 0.2)
        report = self.client.fit_round(self.x, self.y, epochs, [order.seed, 0, number, self.index])
        found = self.client.evaluate(*toy_data(SAMPLES, 50 + self.index))
        update = self.client.update()
        message = ClientUpdate("0" * 32, site.sha256, update.samples, update.theta, update.prototypes)
        data, self.residual = wire.encode_update(message, reference, self.encoding, self.residual)
        sent = wire.decode_update(data, site.sizes, reference)
        metrics = {
            "train_loss": report.loss,
            "train_accuracy": report.accuracy,
            "personalisation": found.accuracy,
            "personalisation_f1": found.macro_f1,
        }
        return sent.theta, sent.prototypes, metrics

    def close(self):
        self.client.close()


def metrics_of(outcome, number):
    (report,) = [report for report in outcome.devices if report.number == number]
    return dict(report.metrics)


def complaint(device, code=2):
    """The one line of a device that ended by itself."""
    ended, said = device.end(None)
    assert ended == code, said
    lines = [line for line in said.splitlines() if not line.startswith(("joined", "bundle"))]
    assert len(lines) == 1, said
    assert lines[0].startswith("fedali-client: ")
    return lines[0].removeprefix("fedali-client: ")


def altered(site, index, name, **changes):
    """A copy of a device's kit with other entries, or files of another kit."""
    kit = site.folder / name
    shutil.copytree(site.kits / f"a-{index}", kit)
    plain = json.loads((kit / FILE).read_text())
    for key, value in changes.items():
        if isinstance(value, str):
            plain[key] = value
        else:
            shutil.copy(value, kit / plain[key])
    (kit / FILE).write_text(json.dumps(plain))
    return kit
