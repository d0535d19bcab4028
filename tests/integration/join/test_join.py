"""Devices that joined: real processes against a real gateway over mTLS."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from fedali import methods
from fedali.wire.tensors import Encoding
from tests.bundles import toy_data
from tests.gateways import EVALUATE, assert_sums, states, uploaded
from tests.integration.join.joined import SAMPLES, Joined, Undisturbed, complaint, metrics_of


def sums(site, updates):
    """What ``fedali.methods`` makes of updates (theta [S], prototypes [L], ...)."""
    total = methods.Upload()
    for shared, prototypes, *_ in updates:
        theta = site.start_state.theta.copy()
        theta[site.shared] = shared
        trained = methods.Trained(theta, prototypes, SAMPLES)
        total += site.method.upload(trained, site.start_state, site.layouts)
    return total


def test_rounds_of_three_devices_are_those_of_edge_clients(site):
    """Two rounds: personal heads stay on the devices, what the encoding lost is sent in the next round."""
    expected = [Undisturbed(site, index, Encoding.INT8) for index in range(3)]
    with Joined(site, 0) as one, Joined(site, 1) as two, Joined(site, 2) as three:
        for number in (1, 2):
            order = site.order(number, epochs=2, encoding=int(Encoding.INT8))
            outcome = site.begin(order).result()
            updates = [device.round(number, 2) for device in expected]
            assert_sums(outcome, sums(site, updates))
            for index, (_, _, metrics) in enumerate(updates):
                assert metrics_of(outcome, index) == pytest.approx(metrics, abs=1e-12)
            judged = site.begin(site.order(number, EVALUATE)).result()
            assert set(states(judged).values()) == {"done"}
            for index, device in enumerate(expected):
                words = (site.start_state.theta[site.shared], site.start_state.prototypes, 0.2)
                found = device.client.evaluate_shared(*words, *toy_data(SAMPLES, 50 + index))
                assert metrics_of(judged, index) == {"global": found.accuracy, "global_f1": found.macro_f1}
        for device in (one, two, three):
            event = device.event("train", round=2)
            assert event["verdict"] == "counted"
            assert event["bytes"] == event["sent"] < 1000
            device.event("evaluate", round=2)
            code, said = device.end()
            assert code == 143
            lines = said.splitlines()
            assert lines[0].startswith("joined wards as a-")
            assert lines[1].startswith("bundle small, ")
            assert [line.split(":")[0] for line in lines[2:]] == ["round 1", "round 1", "round 2", "round 2"]
            assert "trained on 60 samples, loss " in lines[2]
            assert " % on own test data, sent " in lines[2]
            assert len(lines) == 6
    for device in expected:
        device.close()


def test_a_device_waits_for_a_gateway_and_says_so_once(site):
    site.kill()
    with Joined(site, 0) as device:
        reason = device.event("away")["reason"]
        assert reason == f"no gateway at 127.0.0.1:{site.port}: nobody listens there"
        site.start()
        device.event("joined")
        site.kill()
        device.event("away", nth=2)
        code, said = device.end(signal.SIGINT)
    assert code == 130
    lines = said.splitlines()
    assert lines[0] == f"{reason}; this device keeps trying"
    assert lines[1].startswith("joined wards as a-0, gateway ")
    assert lines[2] == lines[0]
    assert len(lines) == 3


@pytest.mark.slow
def test_a_round_that_closes_before_a_device_is_done_is_missed_and_the_next_is_not(site):
    site.kill()
    site.limits = ["heartbeat=0.5"]
    site.start()
    with Joined(site, 0) as slow, Joined(site, 1) as fast:
        slow.event("joined"), fast.event("joined")
        x, y = toy_data(20_000, 3)
        np.savez(site.folder / "large.npz", x=x, y=y)
        (site.folder / "large.npz").replace(site.folder / "train-0.npz")
        order = site.order(1, epochs=1000, quorum=0.5, grace_seconds=2.0, devices=[0, 1])
        outcome = site.begin(order).result()
        assert states(outcome) == {0: "late", 1: "done"}
        assert uploaded(outcome).sums["theta"].weight == SAMPLES
        assert "closed" in slow.event("missed", round=1)["reason"]
        outcome = site.begin(site.order(2, devices=[0, 1])).result()
        assert states(outcome) == {0: "done", 1: "done"}
        assert uploaded(outcome).sums["theta"].weight == SAMPLES + 20_000


def test_a_device_without_test_data_trains_and_declines_to_evaluate(site):
    with Joined(site, 0, test=False) as device:
        outcome = site.begin(site.order(1, devices=[0])).result()
        assert set(metrics_of(outcome, 0)) == {"train_loss", "train_accuracy"}
        outcome = site.begin(site.order(1, EVALUATE, devices=[0])).result()
        (report,) = outcome.devices
        assert (report.state, report.reason[:22]) == ("declined", "there are no test data")
        device.event("declined")
        outcome = site.begin(site.order(2, devices=[0])).result()
        assert states(outcome) == {0: "done"}


def test_once_is_one_training_and_its_exit_code_is_whether_it_counted(site):
    outcome = site.begin(site.order(1, devices=[0]))
    with Joined(site, 0, "--once", "--quiet") as device:
        assert device.end(None) == (0, "")
    assert states(outcome.result()) == {0: "done"}


def test_a_damaged_download_is_fetched_again(site):
    folder = site.folder / "state-0" / "joined" / "wards.a-0" / "downloads"
    folder.mkdir(parents=True)
    (folder / f"{site.sha256.hex()}.part").write_bytes(b"half of something else")
    outcome = site.begin(site.order(1, devices=[0]))
    with Joined(site, 0):
        assert states(outcome.result()) == {0: "done"}


def test_two_processes_do_not_share_a_state(site):
    with Joined(site, 0) as device:
        device.event("joined")
        with Joined(site, 0) as second:
            assert f"is in use by process {device.process.pid}" in complaint(second, code=1)
        assert device.process.poll() is None


def test_wrong_words_and_a_missing_extra_are_one_line(site):
    (site.folder / "train-1.npz").write_bytes(b"nothing")
    with Joined(site, 1) as device:
        assert "train-1.npz is broken and cannot be read as .npz" in complaint(device)
    np.savez(site.folder / "train-2.npz", x=np.zeros((3, 24, 3)))
    with Joined(site, 2) as device:
        assert "train-2.npz has no array y" in complaint(device)
    blocked = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "grpc":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "fedali-client"
from fedali_client.cli import main
main()
"""
    with Joined(site, 0, program=("-c", blocked)) as device:
        assert (
            complaint(device, code=1)
            == "grpc is not installed; this needs an extra: pip install 'fedali[join]'"
        )


def test_a_joined_device_imports_nothing_of_the_server(site):
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "flwr", "scipy", "sklearn", "pandas", "ot", "onnx", "fedali_server"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "fedali-client"
from fedali_client.cli import main
main()
"""
    outcome = site.begin(site.order(1, devices=[0]))
    with Joined(site, 0, program=("-c", program)):
        assert states(outcome.result()) == {0: "done"}
