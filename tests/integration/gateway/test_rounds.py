"""Rounds through a real gateway process, over mTLS."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from fedali.v1 import federation_pb2 as pb
from fedali.v1 import relay_pb2
from fedali.wire.messages import decode_state, task_id
from fedali.wire.tensors import Encoding
from tests.gateways import EVALUATE, TRAIN, ProvisionedSite, assert_sums, parts, states, uploaded


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        yield site.put_bundle()


def do_round(site, order, devices, **update):
    """All ``devices`` answer in turn; the outcome."""
    outcome = site.begin(order)
    for device in devices:
        task = device.wait_for_task()
        data = site.update(device.number, task.id, order.round, **update)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    return outcome.result()


def test_a_round_trains_and_a_round_evaluates(site):
    devices = [site.device(index) for index in range(3)]
    outcome = site.begin(site.order())
    for index, device in enumerate(devices):
        enrolled = device.enrol()
        assert (enrolled.federation, enrolled.device) == ("wards", f"a-{index}")
        task = device.wait_for_task()
        assert (task.id, task.run, task.round) == (task_id("first", 1, TRAIN), "first", 1)
        assert (task.epochs, task.encoding, round(task.influence, 6)) == (1, 1, 0.2)
        assert list(task.entropy) == [7, 0, 1, device.number]
        assert 0 < task.seconds_left <= 600
        bundle = device.download(task.bundle)
        assert (bundle, device.enrol().bundle) == (site.bundle, task.bundle)
        state = device.download(task.state)
        assert hashlib.sha256(state).digest() == task.state.sha256
        theta, prototypes = decode_state(state, site.sizes)
        assert theta.tobytes() == site.start_state.theta[site.shared].tobytes()
        assert prototypes.tobytes() == site.start_state.prototypes.tobytes()
        assert device.heartbeat(task.id)
        reply = device.upload(task.id, site.update(index, task.id))
        assert (reply.verdict, reply.reason) == (pb.VERDICT_COUNTED, "")
        assert not device.heartbeat(task.id)
        assert device.heartbeat()
        assert device.task(wait=0) is None
    trained = outcome.result()
    assert states(trained) == {0: "done", 1: "done", 2: "done"}
    assert_sums(trained, site.expected(range(3)))
    for report in trained.devices:
        assert report.device == f"a-{report.number}"
        assert report.samples == site.trained(report.number).samples
        assert dict(report.metrics) == {"train_loss": 0.5 + report.number}
        assert report.sent == len(site.bundle) + len(state)
        assert report.received == len(site.update(report.number, task_id("first", 1, TRAIN)))
        assert report.seconds > 0

    outcome = site.begin(site.order(kind=EVALUATE))
    for device in devices:
        task = device.wait_for_task()
        assert (task.kind, task.id) == (pb.TASK_KIND_EVALUATE, task_id("first", 1, EVALUATE))
        metrics = {"global": 0.25 * device.number}
        data = site.update(
            device.number, task.id, theta=None, prototypes=None, samples=10 + device.number, metrics=metrics
        )
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    evaluated = outcome.result()
    assert not evaluated.upload
    assert [(r.samples, dict(r.metrics)) for r in evaluated.devices] == [
        (10 + n, {"global": 0.25 * n}) for n in range(3)
    ]


METHODS = {
    "fedavg": ("fedavg", {}, ()),
    "fedali-paper": ("fedali-paper", {}, ()),
    "fedali-paper, head stays": ("fedali-paper", {"personal": "head"}, ((60, 78),)),
    "fedali-paper, mean": ("fedali-paper", {"aggregation": "mean"}, ()),
    "fedali-paper, unbalanced": ("fedali-paper", {"solver": "unbalanced"}, ()),
    "k-means": ("fedali-paper", {"aggregation": "kmeans"}, ()),
    "barycentre": ("fedali-paper", {"barycentre_iterations": 3}, ()),
    "local": ("local", {}, ((0, 78),)),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_sums_are_those_of_the_method(tmp_path, name):
    from fedali.bundle.manifest import Component

    method, options, personal = METHODS[name]
    with ProvisionedSite(tmp_path) as site:
        site.put_bundle(method=Component(method, options), personal=personal)
        outcome = do_round(site, site.order(), [site.device(index) for index in (2, 0, 1)])
        expected = site.expected(range(3))
        assert_sums(outcome, expected)


@pytest.mark.parametrize("encoding", [Encoding.FLOAT16, Encoding.INT8])
def test_shorter_encodings_arrive_within_their_rounding(site, encoding):
    outcome = do_round(
        site, site.order(encoding=int(encoding)), [site.device(i) for i in range(3)], encoding=encoding
    )
    mean = uploaded(outcome).mean("theta")
    np.testing.assert_allclose(mean, site.expected(range(3)).mean("theta"), atol=4e-3)
    assert mean.tobytes() != site.expected(range(3)).mean("theta").tobytes()


def test_the_order_of_arrival_changes_no_bit(tmp_path):
    found = set()
    for turn, order in enumerate([(0, 1, 2, 3, 4), (4, 2, 0, 3, 1), (3, 4, 1, 2, 0)]):
        with ProvisionedSite(tmp_path / str(turn), devices=5) as site:
            site.put_bundle()
            outcome = do_round(site, site.order(), [site.device(index) for index in order])
            found.add(outcome.upload)
    assert len(found) == 1


def test_an_order_asked_twice_is_done_once(site):
    devices = [site.device(index) for index in range(3)]
    order = site.order()
    first = site.begin(order)
    second = site.begin(order)
    devices[0].wait_for_task()
    first.cancel()  # a node that was killed
    for device in devices:
        task = device.wait_for_task()
        assert device.upload(task.id, site.update(device.number, task.id)).verdict == pb.VERDICT_COUNTED
    outcome = second.result()
    assert site.begin(site.order(seconds=5.0)).result() == outcome
    assert devices[0].task(wait=0) is None
    with pytest.raises(grpc.RpcError) as error:
        site.begin(site.order(epochs=2)).result()
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "give the training another name" in error.value.details()


def test_a_node_asks_again_after_the_round_and_after_a_restart(site):
    order = site.order()
    outcome = do_round(site, order, [site.device(index) for index in range(3)])
    assert site.stop() == 0
    site.start()
    assert site.begin(order).result() == outcome
    evaluated = site.begin(site.order(kind=EVALUATE, seconds=0.0)).result()
    assert set(states(evaluated).values()) <= {"late", "offline"}
    assert site.begin(order).result() == outcome  # until the next round's order
    site.begin(site.order(round_=2, seconds=0.0)).result()
    assert sorted(path.name for path in (site.state / "rounds" / "first").iterdir()) == ["2-train"]


def test_an_update_sent_again_is_acknowledged_and_not_counted_again(site):
    first, second = site.device(0), site.device(1)
    outcome = site.begin(site.order(devices=[0, 1]))
    task = first.wait_for_task()
    data = site.update(0, task.id)
    assert first.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    assert first.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    assert first.held(task.id, data) == len(data)
    other = first.upload(task.id, site.update(0, task.id, samples=5))
    assert (other.verdict, other.reason) == (pb.VERDICT_REFUSED, "another update of this device was counted")
    task = second.wait_for_task()
    assert second.upload(task.id, site.update(1, task.id)).verdict == pb.VERDICT_COUNTED
    assert_sums(outcome.result(), site.expected([0, 1]))
    assert first.upload(task.id, data).verdict == pb.VERDICT_COUNTED  # the round is over by now
    assert second.upload(task.id, site.update(1, task.id, samples=3)).verdict == pb.VERDICT_REFUSED


def test_a_round_ends_at_its_deadline_with_what_it_has(site):
    done, slow = site.device(0), site.device(1)
    outcome = site.begin(site.order(seconds=1.0))
    task = slow.wait_for_task()
    task = done.wait_for_task()
    done.upload(task.id, site.update(0, task.id))
    found = outcome.result()
    if (
        done.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_COUNTED
    ):  # a busy machine may be late
        assert states(found) == {0: "done", 1: "late", 2: "offline"}
        assert_sums(found, site.expected([0]))
    late = slow.upload(task.id, site.update(1, task.id))
    assert (late.verdict, late.reason) == (pb.VERDICT_LATE, "the round is over")
    assert not slow.heartbeat(task.id)
    assert slow.task(wait=0) is None


def test_with_its_quorum_a_round_waits_for_its_grace_alone(site):
    outcome = site.begin(site.order(quorum=0.5, grace_seconds=0.0))
    for index in (0, 2):  # two of three are the half
        assert not outcome.done()
        device = site.device(index)
        task = device.wait_for_task()
        device.upload(task.id, site.update(index, task.id))
    found = outcome.result()
    assert states(found) == {0: "done", 1: "offline", 2: "done"}
    assert_sums(found, site.expected([0, 2]))


def test_grace_lets_the_rest_in(site):
    outcome = site.begin(site.order(quorum=0.1, grace_seconds=300.0))
    for index in range(3):
        device = site.device(index)
        task = device.wait_for_task()
        assert device.upload(task.id, site.update(index, task.id)).verdict == pb.VERDICT_COUNTED
    assert_sums(outcome.result(), site.expected(range(3)))


def test_who_declines_is_not_waited_for(site):
    outcome = site.begin(site.order())
    for index in range(2):
        device = site.device(index)
        task = device.wait_for_task()
        device.upload(task.id, site.update(index, task.id))
    device = site.device(2)
    task = device.wait_for_task()
    device.call("Decline", pb.DeclineRequest(task=task.id, reason="the disk is full"))
    found = outcome.result()
    assert states(found) == {0: "done", 1: "done", 2: "declined"}
    assert found.devices[2].reason == "the disk is full"
    assert device.upload(task.id, site.update(2, task.id)).verdict == pb.VERDICT_REFUSED
    assert_sums(found, site.expected([0, 1]))


def test_a_round_for_some_devices_leaves_the_others_alone(site):
    outcome = site.begin(site.order(devices=[1]))
    device = site.device(1)
    task = device.wait_for_task()
    other = site.device(0)
    assert other.task(wait=0) is None
    refused = other.upload(task.id, site.update(0, task.id))
    assert (refused.verdict, refused.reason) == (
        pb.VERDICT_REFUSED,
        "the round does not wait for this device",
    )
    device.upload(task.id, site.update(1, task.id))
    assert states(outcome.result()) == {1: "done"}


def test_another_round_takes_the_place_of_an_open_one(site):
    device = site.device(0)
    first = site.begin(site.order())
    old = device.wait_for_task()
    second = site.begin(site.order(round_=2, devices=[0]))
    with pytest.raises(grpc.RpcError) as error:
        first.result()
    assert "another round was ordered" in error.value.details()
    task = device.wait_for_task()
    assert (task.round, task.id != old.id) == (2, True)
    assert device.upload(old.id, site.update(0, old.id)).verdict == pb.VERDICT_LATE
    device.upload(task.id, site.update(0, task.id, 2))
    assert_sums(second.result(), site.expected([0], 2))


def test_uploads_and_downloads_go_on_where_they_broke_off(site):
    device = site.device(0)
    outcome = site.begin(site.order(devices=[0]))
    task = device.wait_for_task()
    assert device.download(task.state, offset=100) == device.download(task.state)[100:]
    assert device.download(task.state, offset=task.state.size) == b""
    data = site.update(0, task.id)
    broken = device.call("Upload", parts(task.id, data, chunk=50, end=150))
    assert (broken.verdict, broken.received) == (pb.VERDICT_INCOMPLETE, 150)
    assert device.held(task.id, data) == 150
    site.kill()
    site.start()
    assert device.held(task.id, data) == 150
    ahead = device.upload(task.id, data, offset=200)
    assert (ahead.verdict, ahead.received) == (pb.VERDICT_INCOMPLETE, 150)
    assert device.upload(task.id, data, offset=100).verdict == pb.VERDICT_COUNTED
    assert_sums(
        outcome.result() if not outcome.exception() else site.begin(site.order(devices=[0])).result(),
        site.expected([0]),
    )


def test_a_second_upload_of_a_device_ends_the_first(site):
    device = site.device(0)
    outcome = site.begin(site.order(devices=[0]))
    task = device.wait_for_task()
    data = site.update(0, task.id)

    def slowly():
        messages = parts(task.id, data, chunk=50)
        yield next(messages)
        yield next(messages)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
        yield from messages

    with pytest.raises(grpc.RpcError) as error:
        device.call("Upload", slowly())
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert_sums(outcome.result(), site.expected([0]))


def test_a_device_is_told_its_turn_before_it_sends_data(tmp_path):
    """Devices that wait for it send one after another, however many there are; one that keeps its turn for long loses it."""
    with ProvisionedSite(tmp_path, "transfers_at_once=1") as site:
        site.put_bundle()
        outcome = site.begin(site.order())
        told, may_send = [], [threading.Event() for _ in range(3)]

        def upload(index):
            device = site.device(index)
            task = device.wait_for_task()
            messages = parts(task.id, site.update(index, task.id))
            header = next(messages)

            def sent():
                yield header
                assert may_send[index].wait(30)
                yield from messages

            call = device.stub.Upload.future(sent(), timeout=60)
            assert call.initial_metadata() is not None
            told.append(index)
            return call

        calls = [upload(0)]
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(upload, index) for index in (1, 2)]
            may_send[0].set()
            assert calls[0].result().verdict == pb.VERDICT_COUNTED
            calls += [each.result(30) for each in waiting]  # the second keeps its turn, the third is let in
        assert not any(call.done() for call in calls[1:])
        for event in may_send:
            event.set()
        assert {call.result().verdict for call in calls} == {pb.VERDICT_COUNTED}
        assert told[0] == 0
        assert_sums(outcome.result(), site.expected([0, 1, 2]))


def test_status_tells_who_is_there(site):
    relay = site.relay()
    before = relay.Status(relay_pb2.StatusRequest())
    assert (before.federation, before.site, before.run) == ("wards", "a", "")
    assert [(d.device, d.number, d.online) for d in before.devices] == [
        (f"a-{n}", n, False) for n in range(3)
    ]
    assert before.devices[0].seen_seconds < 0
    device = site.device(1)
    device.enrol()
    outcome = site.begin(site.order(devices=[1]))
    task = device.wait_for_task()
    device.heartbeat(task.id, 0.4)
    now = relay.Status(relay_pb2.StatusRequest())
    assert (now.run, now.round, now.kind) == ("first", 1, TRAIN)
    assert 0 < now.seconds_left <= 600
    assert [(d.online, d.doing, d.software) for d in now.devices[:2]] == [
        (False, "", ""),
        (True, "training, 40%", "test 1"),
    ]
    device.upload(task.id, site.update(1, task.id))
    outcome.result()


def test_what_it_writes_is_the_sites_alone_and_one_process_holds_it(site):
    assert stat.S_IMODE(site.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(site.socket.stat().st_mode) == 0o600
    command = [sys.executable, "-m", "fedali_server.gateway", site.kit.folder, "--state", site.state]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr == f"error: another gateway runs with the state {site.state}\n"
    assert site.stop() == 0
    assert not os.path.lexists(site.socket)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--limit", "chunks=3"], "error: --limit chunks=3: did you mean 'chunk'?"),
        (["--limit", "chunk=x"], "error: --limit chunk=x: 'x' is no number"),
        (["--socket", "/tmp/" + 100 * "x"], "is too long for a Unix socket"),
    ],
)
def test_what_cannot_start_says_why_in_a_line(site, tmp_path, words, why):
    command = [sys.executable, "-m", "fedali_server.gateway", site.kit.folder, "--state", tmp_path / "other"]
    found = subprocess.run([*command, *words], capture_output=True, text=True)
    assert found.returncode != 0
    assert why in found.stderr
    assert found.stderr.count("\n") == 1
