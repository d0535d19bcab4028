"""Devices that joined: real processes against a real gateway over mTLS, killed at any moment, refused for what they are."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from fedali import methods
from fedali.v1 import relay_pb2
from fedali.wire import messages as wire
from fedali.wire.kit import FILE
from fedali.wire.messages import ClientUpdate, Encoding
from fedali_client import EdgeClient
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from fedali_server.provisioning.revoke import revoke
from tests.bundles import toy_data, write_full
from tests.gateways import ANSWER, EVALUATE, Site, assert_sums, states
from tests.marks import slow

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


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as site:
        write_full(tmp_path / "m.fedali", key=site.signer, personal=True, options={"personal": "head"})
        site.put(tmp_path / "m.fedali")
        yield site


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


def sums(site, updates):
    """What ``fedali.methods`` makes of updates (theta [S], prototypes [L], ...)."""
    total = methods.Contribution()
    for shared, prototypes, *_ in updates:
        theta = site.start_state.theta.copy()
        theta[site.shared] = shared
        trained = methods.Trained(theta, prototypes, SAMPLES)
        site.method.contribute(total, trained, site.start_state, site.layouts)
    return total


def metrics_of(outcome, number):
    (report,) = [report for report in outcome.devices if report.number == number]
    return dict(report.metrics)


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


@pytest.mark.slow
def test_a_device_killed_at_random_moments_counts_once_with_the_bits_of_one_that_was_not(site):
    random.seed(0)
    epochs, kills = 600, 0
    expected = Undisturbed(site, 0, Encoding.FLOAT16)
    for number in (1, 2, 3):
        order = site.order(number, epochs=epochs, encoding=int(Encoding.FLOAT16), devices=[0])
        outcome = site.begin(order)
        for _ in range(6):
            with Joined(site, 0) as device:
                if kills % 3:
                    device.event("joined")
                    time.sleep(random.uniform(0, 0.5))
                else:
                    time.sleep(random.uniform(0, 0.8))
                device.process.kill()
                kills += 1
            if outcome.done():
                break
        with Joined(site, 0) as device:
            found = outcome.result()
            device.event("bundle")  # by then it has asked what became of an update that it has no answer to
        theta, prototypes, metrics = expected.round(number, epochs)
        assert states(found) == {0: "done"}
        assert found.theta.weight == SAMPLES
        assert (np.frombuffer(found.theta.total) == SAMPLES * theta.astype(np.float64)).all()
        assert (np.frombuffer(found.prototypes.total) == SAMPLES * prototypes.astype(np.float64)).all()
        assert metrics_of(found, 0) == metrics
    assert kills > 9
    expected.close()


# Kills its own process right before, or right after, the n-th call of a function.
SUICIDE = """
import importlib, os, signal, sys
where, when, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]
module, name, function = where.split(":")
owner = getattr(importlib.import_module(module), name)
original, calls = getattr(owner, function), [0]
def deadly(*words, **options):
    calls[0] += 1
    if calls[0] == count and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    found = original(*words, **options)
    if calls[0] == count and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return found
setattr(owner, function, deadly)
sys.argv[0] = "fedali-client"
from fedali_client.cli import main
main()
"""
MOMENTS = {
    "while a bundle is taken up": ("fedali_client.join.session:Session:_hold", "after", 1),
    "when the state is there": ("fedali_client.join.artifacts:Artifacts:fetch", "after", 2),
    "when the round has begun": ("fedali_client.client:EdgeClient:receive", "after", 1),
    "between base and checkpoint": ("fedali_client.state.statefiles:StateFiles:write_base", "after", 1),
    "in the middle of training": ("fedali_client.state.slots:Slots:commit", "before", 9),
    "when training is done": ("fedali_client.client:EdgeClient:fit_round", "before", 1),
    "when it is saved": ("fedali_client.client:EdgeClient:fit_round", "after", 1),
    "when the update is written": ("fedali_client.join.journal:Journal:add", "after", 1),
    "before it is uploaded": ("fedali_client.join.gateway:Gateway:upload", "before", 1),
    "before the acknowledgement is noted": ("fedali_client.join.journal:Journal:settle", "before", 1),
    "after it is noted": ("fedali_client.join.journal:Journal:settle", "after", 1),
}


QUICK = ("before the acknowledgement is noted",)


@pytest.mark.parametrize("moment", slow(MOMENTS, lambda moment: moment not in QUICK))
def test_a_kill_at_each_moment_of_a_round_changes_nothing(site, moment):
    """And neither does it to the next round, which starts from a personal head and from what the encoding owes."""
    expected = Undisturbed(site, 0, Encoding.INT8)
    for number in (1, 2):
        outcome = site.begin(site.order(number, epochs=2, encoding=int(Encoding.INT8), devices=[0]))
        where, when, count = MOMENTS[moment]
        if number == 1:
            words = ("-c", SUICIDE, where, when, str(count))
            with Joined(site, 0, program=words) as device:
                assert device.end(None)[0] == -signal.SIGKILL
        with Joined(site, 0) as device:
            found = outcome.result()
            device.event("bundle")
        theta, prototypes, metrics = expected.round(number, 2)
        assert found.theta.weight == SAMPLES
        assert (np.frombuffer(found.theta.total) == SAMPLES * theta.astype(np.float64)).all()
        assert (np.frombuffer(found.prototypes.total) == SAMPLES * prototypes.astype(np.float64)).all()
        assert metrics_of(found, 0) == metrics
    expected.close()


@pytest.mark.parametrize(
    "restart",
    slow([False, True], lambda restart: restart),
    ids=["the same gateway", "a gateway started anew"],
)
def test_a_device_killed_before_it_heard_that_it_counted_learns_so_rounds_later(site, restart):
    """What its encoding lost is owed, though the round is long over and others have passed."""
    expected = Undisturbed(site, 0, Encoding.INT8)
    outcome = site.begin(site.order(1, epochs=2, encoding=int(Encoding.INT8), devices=[0]))
    with Joined(
        site, 0, program=("-c", SUICIDE, *MOMENTS["before the acknowledgement is noted"][:2], "1")
    ) as device:
        assert device.end(None)[0] == -signal.SIGKILL
    assert states(outcome.result()) == {0: "done"}
    expected.round(1, 2)
    for number in (2, 3):
        with Joined(site, 1):
            site.begin(site.order(number, epochs=1, encoding=int(Encoding.INT8), devices=[1])).result()
    if restart:
        site.kill()
        site.start()
    outcome = site.begin(site.order(4, epochs=2, encoding=int(Encoding.INT8), devices=[0]))
    with Joined(site, 0) as device:
        found = outcome.result()
        assert device.event("train", round=1)["verdict"] == "counted"
    theta, prototypes, _ = expected.round(4, 2)
    assert (np.frombuffer(found.theta.total) == SAMPLES * theta.astype(np.float64)).all()
    assert (np.frombuffer(found.prototypes.total) == SAMPLES * prototypes.astype(np.float64)).all()
    expected.close()


@pytest.mark.slow
def test_a_gateway_killed_while_a_device_trains_finds_it_there_again(site):
    expected = Undisturbed(site, 0)
    order = site.order(1, epochs=800, devices=[0])
    with Joined(site, 0) as device:
        site.begin(order).add_callback(lambda: None)
        device.event("bundle")
        for _ in range(3):
            site.kill()
            site.start()
        outcome = site.begin(order).result()
        assert device.event("train")["verdict"] == "counted"
        theta, prototypes, _ = expected.round(1, 800)
        assert (np.frombuffer(outcome.theta.total) == SAMPLES * theta.astype(np.float64)).all()
        assert (np.frombuffer(outcome.prototypes.total) == SAMPLES * prototypes.astype(np.float64)).all()
        code, said = device.end()
        assert code == 143
        assert said.count("round 1: ") == 1
    expected.close()


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
        assert outcome.theta.weight == SAMPLES
        assert "closed" in slow.event("missed", round=1)["reason"]
        outcome = site.begin(site.order(2, devices=[0, 1])).result()
        assert states(outcome) == {0: "done", 1: "done"}
        assert outcome.theta.weight == SAMPLES + 20_000


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


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Another federation with the same names."""
    with Site(tmp_path_factory.mktemp("stranger")) as other:
        yield other


def test_wrong_kits_are_refused_in_one_line(site, stranger):
    gateway = f"127.0.0.1:{site.port}"
    theirs, other = stranger.kits / "a-0", site.kits / "b-0"
    for name, changes, line in (
        (
            "certificate",
            {"certificate": theirs / "device.pem", "key": theirs / "device.key"},
            f"the gateway {gateway} hangs up on this device: its certificate is of another federation",
        ),
        (
            "another-site",
            {"certificate": other / "device.pem", "key": other / "device.key"},
            f"the gateway {gateway} refuses this device: this site has no device with this certificate",
        ),
        (
            "name",
            {"gateway_name": "b.wards.fedali"},
            f"what answers at {gateway} is not this device's gateway: its certificate is not one of b.wards.fedali",
        ),
        (
            "authority",
            {"authority": theirs / "servers-authority.pem"},
            f"what answers at {gateway} is not this device's gateway: its certificate is not one of the federation wards",
        ),
        ("key", {"key": theirs / "device.key"}, "do not work together"),
    ):
        with Joined(site, 0, kit=altered(site, 0, name, **changes)) as device:
            assert line in complaint(device)
    with Joined(site, 0, kit=site.kits / "a") as device:
        assert "kits/a is " in complaint(device)
    with Joined(site, 0, kit=site.folder) as device:
        assert "a kit is a folder of `fedali provision`" in complaint(device)


def test_a_device_whose_certificate_has_expired_says_since_when(tmp_path):
    site, past = Site(tmp_path), datetime.now(timezone.utc) - timedelta(days=3)
    lasting = FederationConfig.model_validate({**site.config.model_dump(), "certificate_days": 1})
    provision(lasting, site.kits, renew=["a-0"], now=past)
    with site, Joined(site, 0) as device:
        line = f"hangs up on this device: its certificate has expired on {past + timedelta(days=1):%Y-%m-%d}; ask for a new kit"
        assert complaint(device).endswith(line)


def test_a_device_that_is_revoked_ends_and_says_why(site):
    with Joined(site, 0) as device:
        device.event("joined")
        revoke("a-0", site.kits)
        revoked = json.loads((site.kits / "operator" / "revoked.json").read_text())
        import base64

        site.relay().Revoke(
            relay_pb2.RevokeRequest(
                list=revoked["list"].encode(), signature=base64.b64decode(revoked["signature"])
            ),
            timeout=ANSWER,
        )
        assert complaint(device).endswith("refuses this device: this device's certificate is revoked")


def test_a_bundle_that_another_key_signed_is_declined_and_the_device_stays(site, stranger):
    """The gateway would not take one either, unless somebody had taken it over."""
    kit = altered(site, 0, "other-key", trusted_key=stranger.kit.trusted_key)
    with Joined(site, 0, kit=kit) as device:
        outcome = site.begin(site.order(1, devices=[0])).result()
        (report,) = outcome.devices
        assert report.state == "declined"
        assert "its signature is not one of a trusted key" in report.reason
        assert str(site.folder) not in report.reason
        event = device.event("declined", round=1)
        assert "its signature is not one of a trusted key" in event["reason"]
        assert not list(device.state.glob("*/training.map"))
        outcome = site.begin(site.order(2, devices=[0])).result()
        assert states(outcome) == {0: "declined"}
        assert device.end()[0] == 143


def test_data_that_do_not_fit_are_declined_and_told(site):
    np.savez(site.folder / "train-0.npz", x=np.zeros((5, 7, 2), np.float32), y=[0] * 5)
    with Joined(site, 0) as device:
        outcome = site.begin(site.order(1, devices=[0])).result()
        (report,) = outcome.devices
        assert (report.state, report.reason) == (
            "declined",
            "this device's data do not fit the model, or cannot be read",
        )
        code, said = device.end(None)
    assert code == 2
    assert "x has shape [5, 7, 2]; this model takes [n, 24, 3]" in said.splitlines()[-1]


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


def test_an_update_that_is_refused_is_told_with_its_reason(site):
    outcome = site.begin(site.order(1, devices=[0], epochs=20, largest_step=1e-6))
    with Joined(site, 0, "--once") as device:
        code, said = device.end(None)
    (report,) = outcome.result().devices
    assert report.state == "refused"
    assert code == 1
    lines = said.splitlines()
    assert f", refused: {report.reason}" in lines[-2]
    assert lines[-1] == "fedali-client: the training did not count"


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
