"""A whole federation with a device that lies and one that is away: what `fedali run` makes of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest

from fedali.v1 import federation_pb2 as pb
from fedali.wire.kit import DeviceKit, read_kit_as
from fedali.wire.messages import ClientUpdate, encode_update, parse
from fedali.wire.tensors import decode
from fedali_server.site.relay import RelayConnection
from tests.federations import QUIET, Place
from tests.gateways import Device

BILLION = 10**9


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("hostile"), devices=4)
    place.bundle()
    with place:
        place.local.processes["device-3"].signal(signal.SIGTERM)
        place.local.processes["device-3"].end()
        yield place


class Liar(threading.Thread):
    """Speaks the protocol with a good certificate: trains nothing, and says that it has a billion samples."""

    def __init__(self, kit):
        super().__init__(daemon=True)
        self.device, self.over = Device(read_kit_as(kit, DeviceKit)), threading.Event()

    def run(self):
        while not self.over.is_set():
            try:
                self.device.enrol(train_samples=BILLION, test_samples=BILLION)
                while not self.over.is_set():
                    task = self.device.task(1.0)
                    if task is not None:
                        self.device.upload(task.id, self.answer(task))
            except grpc.RpcError:
                self.over.wait(0.1)

    def answer(self, task):
        if task.kind == pb.TASK_KIND_EVALUATE:
            lie = ClientUpdate(task.id, task.bundle.sha256, BILLION, metrics={"global": 0.0})
            return encode_update(lie)[0]
        data = self.device.download(task.state)
        assert hashlib.sha256(data).digest() == task.state.sha256
        state = parse(pb.SharedState, data, len(data), "the state")
        theta, prototypes = (decode(one, one.size) for one in (state.theta, state.prototypes))
        return encode_update(ClientUpdate(task.id, task.bundle.sha256, BILLION, theta, prototypes))[0]


def trained(facts):
    return {r["device"]: r for r in facts["reports"] if r["kind"] == "train"}


@pytest.mark.slow
def test_who_is_awaited_is_said_at_once_and_resuming_with_a_quorum_ends_the_waiting(place):
    gateway = RelayConnection(place.local.sockets["site-b"])
    place.wait(lambda: [d.online for d in gateway.status().devices if d.device == "device-3"] == [False])
    gateway.close()
    out, kit = place.folder / "waits", place.local.kit("operator")
    words = [sys.executable, "-m", "fedali", "run", place.bundle(), "--rounds", "1", "--quorum", "1"]
    run = subprocess.Popen(
        [*map(str, words), "--kit", str(kit), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
    )
    said = ""
    with run:
        while "--resume with --quorum" not in said:
            line = run.stderr.readline()
            assert line, said
            said += line
        place.wait(lambda: any(folder.glob("*/1-train") for folder in rounds(place)))  # the round is open
        run.send_signal(signal.SIGINT)
    said = " ".join(said.split())
    assert (
        "not here yet: device-3. With --quorum 1 training and evaluation of each round may wait up to 600 s"
        in said
    )
    assert "Without them: Ctrl-C, then --resume with --quorum 0.75" in said
    again = place.start_run("waits", "--quorum", "0.5", "--grace", "0")
    place.finish(again, "waits")
    (facts,) = place.rounds("waits")
    assert trained(facts)["device-3"]["state"] == "offline"


def rounds(place):
    return [place.local.kit(site) / "state" / "rounds" for site in place.local.sites]


@pytest.mark.slow
def test_a_device_that_is_away_costs_its_grace_once_and_a_liar_moves_the_model_by_its_bound(place):
    words = ["run", str(place.bundle()), "--rounds", "1", "--kit", str(place.local.kit("operator"))]
    honest = place.start_run(
        "honest", "--rounds", "1", "--quorum", "0", "--grace", "1", bundle=place.bundle()
    )
    place.finish(honest, "honest")
    (facts,) = place.rounds("honest")
    assert {name: r["state"] for name, r in trained(facts).items()} == {
        **dict.fromkeys(("device-0", "device-1", "device-2"), "done"),
        "device-3": "offline",
    }
    counts = [r["samples"] for r in trained(facts).values() if r["state"] == "done"]

    liar = Liar(place.local.kit("device-3"))
    liar.start()
    try:
        out = place.folder / "lied"
        done = subprocess.run(
            [sys.executable, "-m", "fedali", *words, "--quorum", "1", "--out", str(out)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **QUIET},
        )
        assert done.returncode == 0, done.stderr
    finally:
        liar.over.set()
    (facts,) = place.rounds("lied")
    report = trained(facts)["device-3"]
    bound = 10 * sorted([*counts, BILLION])[1]  # the lower median of four
    assert (report["samples"], report["weight"]) == (BILLION, bound)
    assert f"device-3 says 1000000000 samples and counts as {bound} (--largest-weight)" in done.stderr
    assert "of test data and counts as" in done.stderr
    assert f"fedali export {out} --key" in " ".join(done.stdout.split())

    start = np.asarray(place.initial(), np.float64)
    without, with_it = (np.asarray(place.state(name)[1], np.float64) for name in ("honest", "lied"))
    share = sum(counts) / (sum(counts) + bound)  # the liar sent the state itself
    np.testing.assert_allclose(with_it - start, (without - start) * share, atol=2e-6)
    tests = [(r["samples"], r["metrics"]["global"]) for r in facts["reports"] if r["kind"] == "evaluate"][:3]
    found = json.loads((out / "results.json").read_text())
    (line,) = [line for line in found["table"] if line["measure"] == "global"]
    most = 10 * sorted([*(count for count, _ in tests), BILLION])[1]
    expected = sum(count * value for count, value in tests) / (sum(count for count, _ in tests) + most)
    assert line["accuracy"] == pytest.approx(expected)
