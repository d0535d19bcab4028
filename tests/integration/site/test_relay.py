"""The relay against a real gateway process, without Flower: what a site answers to rounds and to questions."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedali.cohort.contract import RoundSettings
from fedali.errors import FedaliError
from fedali.methods import SharedState
from fedali.v1 import federation_pb2 as pb
from fedali.version import __version__
from fedali.wire.messages import ClientUpdate, encode_update
from fedali.wire.tensors import Encoding
from fedali_server.flower import records, relay_records
from fedali_server.site.relay import DeviceRun, RelayConnection, RelaySite, make_relay_app
from tests.gateways import ProvisionedSite


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path, devices=2) as site:
        yield site


@pytest.fixture
def gateway(site):
    gateway = RelayConnection(site.socket)
    yield gateway
    gateway.close()


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch):
    """Flower makes messages within a run alone."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def config(site, **changes):
    plain = {
        "run": "first",
        "bundle": site.sha256.hex(),
        "epochs": 2,
        "seed": 7,
        "encoding": 1,
        "largest_samples": 0,
    }
    bounds = {"seconds": 600.0, "quorum": 1.0, "grace_seconds": 0.0, "largest_step": 0.0}
    return {**plain, **bounds, **changes}


def train(site, gateway, round_=1, **changes):
    shared = SharedState(site.start_state.theta, site.start_state.prototypes)
    relay = RelaySite(gateway, DeviceRun.of(config(site, **changes)))
    return relay.train(RoundSettings(round_, influence=0.25), shared)


def in_a_thread(call, *words, **named):
    """A call that is under way."""
    return ThreadPoolExecutor(1).submit(call, *words, **named)


def test_a_round_is_handed_to_the_devices_and_their_sum_handed_back(site, gateway):
    site.put_bundle()
    running = in_a_thread(train, site, gateway)
    devices = [site.device(index) for index in range(2)]
    for device in devices:
        device.enrol()
        task = device.wait_for_task()
        assert (task.epochs, task.influence, list(task.entropy)) == (2, 0.25, [7, 0, 1, device.number])
        state = device.download(task.state)
        assert state
        data = site.update(device.number, task.id)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    reply = running.result()
    expected = site.expected(range(2))
    for name in ("theta", "prototypes"):
        found, wanted = reply.upload.sums[name], expected.sums[name]
        assert found.weight == wanted.weight
        np.testing.assert_allclose(found.total, wanted.total, rtol=1e-13, atol=1e-13)
    samples = [float(site.trained(number).samples) for number in range(2)]
    assert reply.metrics == {"client": [0.0, 1.0], "samples": samples, "train_loss": [0.5, 1.5]}
    assert [(r["site"], r["device"], r["state"]) for r in reply.reports] == [
        ("a", "a-0", "done"),
        ("a", "a-1", "done"),
    ]
    assert all(report["received"] > 0 and report["sent"] > 0 for report in reply.reports)


def test_a_device_that_stays_away_is_reported_and_in_no_sum(site, gateway):
    site.put_bundle()
    device = site.device(1)
    device.enrol()
    running = in_a_thread(train, site, gateway, quorum=0.5)
    task = device.wait_for_task()
    device.upload(task.id, site.update(1, task.id))
    reply = running.result()
    assert reply.metrics["client"] == [1.0]
    assert [report["state"] for report in reply.reports] == ["offline", "done"]


def test_metrics_that_a_device_lacks_are_nan(site, gateway):
    site.put_bundle()
    shared = SharedState(site.start_state.theta, site.start_state.prototypes)
    relay = RelaySite(gateway, DeviceRun.of(config(site)))
    running = in_a_thread(relay.evaluate, RoundSettings(1), shared)
    for number, metrics in enumerate([{"global": 0.5}, {}]):
        device = site.device(number)
        device.enrol()
        task = device.wait_for_task()
        update = ClientUpdate(task.id, site.sha256, 10 + number, None, None, metrics)
        data, _ = encode_update(update, None, Encoding.FLOAT32, None)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    reply = running.result()
    assert reply.upload is None
    assert reply.metrics["test_samples"] == [10.0, 11.0]
    assert reply.metrics["global"][0] == 0.5
    assert np.isnan(reply.metrics["global"][1])


def test_a_gateway_that_is_killed_in_a_round_is_waited_for(site, gateway):
    site.put_bundle()
    running = in_a_thread(train, site, gateway)
    device = site.device(0)
    device.enrol()
    task = device.wait_for_task()
    assert device.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_COUNTED
    site.kill()
    site.start()
    other = site.device(1)
    other.enrol()
    other.upload(other.wait_for_task().id, site.update(1, task.id))
    first = running.result()
    again = train(site, gateway)
    for one, two in zip(first.reports, again.reports, strict=True):
        assert one == two
    assert first.upload.sums["theta"].total.tobytes() == again.upload.sums["theta"].total.tobytes()
    assert first.upload.sums["theta"].weight == site.expected(range(2)).sums["theta"].weight


def test_errors_name_the_gateways_reason(site, gateway):
    site.sha256, site.start_state = bytes(32), SharedState(np.zeros(3, np.float32), np.zeros(1, np.float32))
    with pytest.raises(FedaliError, match=r"^the gateway refused: .*bundle"):
        train(site, gateway)
    with pytest.raises(FedaliError, match=r"^the gateway refused: "):
        gateway.put_bundle(b"garbage")
    with pytest.raises(FedaliError, match=r"^the gateway refused: "):
        gateway.revoke(b'{"number": 9, "revoked": []}', bytes(64))
    site.put_bundle()
    with pytest.raises(FedaliError, match=r"^the gateway refused: "):
        train(site, gateway, run="Not A Name")
    site.stop()
    hasty = RelayConnection(site.socket, patience=0.5)
    with pytest.raises(FedaliError, match=r"did not answer within .* is it running"):
        hasty.status()
    hasty.close()


@pytest.mark.parametrize("change", [{"bundle": "xyz"}, {"epochs": None}, {"seconds": "soon"}])
def test_a_run_of_another_kind_is_refused_in_one_line(site, change):
    site.sha256 = bytes(32)
    with pytest.raises(FedaliError, match="not one for devices"):
        DeviceRun.of(config(site, **change))
    with pytest.raises(FedaliError, match="start it with fedali run"):
        DeviceRun.of({"study": "x", "scenario": "{}", "line": 0, "seed": 0})


def asked(app, question, run_config=None):
    """What the app says to a message that came over Flower."""
    head = question.metadata
    metadata = Metadata(1, "m", 1, 2, "", "", 1.0, 60.0, head.message_type)
    message = Message(metadata=metadata, content=question.content)
    return app(message, Context(1, 2, {}, RecordDict(), run_config or {}))


def test_questions_are_answered_over_flowers_messages(site, gateway):
    app = make_relay_app(lambda _: gateway)
    hello = relay_records.read_hello(asked(app, relay_records.ask_hello(5)))
    assert (hello.site, hello.federation, hello.version, hello.run) == ("a", "wards", __version__, "")
    assert [(device.device, device.online, device.revoked) for device in hello.devices] == [
        ("a-0", False, False),
        ("a-1", False, False),
    ]
    site.put_bundle()
    for sha256, held in ((site.sha256, True), (bytes(32), False)):
        answer = asked(app, relay_records.ask_has_bundle(5, sha256))
        assert relay_records.read_has_bundle(answer) is held
    asked(app, relay_records.ask_put_bundle(5, site.bundle))
    certificate = site.kit.devices[1].certificate_sha256
    text = json.dumps({"number": 9, "revoked": [certificate]}).encode()
    signed = json.loads(site.operator.revoked.read_text())
    before = asked(
        app,
        relay_records.ask_revoke(5, signed["list"].encode(), base64.b64decode(signed["signature"])),
    )
    assert relay_records.read_revoked(before) == json.loads(signed["list"])["number"]
    with pytest.raises(FedaliError, match="the gateway refused"):
        asked(app, relay_records.ask_revoke(5, text, bytes(64)))


def test_reports_travel_with_a_rounds_reply(site, gateway):
    site.put_bundle()
    app = make_relay_app(lambda _: gateway)
    device = site.device(0)
    device.enrol()

    def work():
        task = device.wait_for_task()
        device.upload(task.id, site.update(0, task.id))

    thread = threading.Thread(target=work)
    thread.start()
    content = records.instructions(RoundSettings(1), records.from_shared(site.start_state))
    message = Message(content, 2, "train")
    reply = asked(app, message, config(site, quorum=0.5))
    thread.join()
    assert [report["state"] for report in records.read_reports(reply.content)] == ["done", "offline"]
    assert records.read_upload(reply.content).sums["theta"].weight == site.trained(0).samples


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"devices": 3}', '{"devices": [{"device": 1}]}'])
def test_an_introduction_that_is_none_is_an_error_of_one_line(text):
    broken = Message(RecordDict({"hello": ConfigRecord({"json": text})}), 2, "query.hello")
    with pytest.raises(FedaliError, match="introduction cannot be read"):
        relay_records.read_hello(broken)
    with pytest.raises(FedaliError, match=r"no has_bundle\.held"):
        relay_records.read_has_bundle(broken)
