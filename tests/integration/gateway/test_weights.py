"""What a device weighs at a real gateway: no more than its bound, whatever it says; and what an away device costs the others."""

from __future__ import annotations

import socket
import ssl
import time

import numpy as np
import pytest

from fedali import methods
from fedali.data.normalisation import add_up, channel_sums
from fedali.v1 import federation_pb2 as pb
from fedali.wire.statistics import of_message
from tests.gateways import ANSWER, ProvisionedSite, assert_sums, states, uploaded
from tests.integration.gateway.test_statistics import data_of, order, update

BILLION = 10**9


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path, "fold_every=2", "heartbeat=1") as site:
        yield site.put_bundle()


def answer(site, number, **changes):
    device = site.device(number)
    task = device.wait_for_task()
    data = site.update(number, task.id, **changes)
    assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    return device


def weighed(site, weights):
    """The sums of clients of these weights."""
    total = methods.Upload()
    for number, weight in weights.items():
        trained = site.trained(number)
        part = methods.Trained(trained.theta, trained.local_prototypes, weight)
        total += site.method.upload(part, site.start_state, site.layouts)
    return total


def test_a_device_that_claims_a_billion_samples_moves_the_model_by_its_bound(site):
    outcome = site.begin(site.order(largest_weight=1000, largest_weights={2: 300}))
    answer(site, 1, samples=BILLION)
    site.kill()
    site.start()  # what it weighs is known after a kill too
    answer(site, 0, samples=200)
    answer(site, 2, samples=301)
    found = outcome.result() if not outcome.done() or not outcome.exception() else None
    found = found or site.begin(site.order(largest_weight=1000, largest_weights={2: 300})).result()
    assert_sums(found, weighed(site, {0: 200, 1: 1000, 2: 300}))
    said = [(report.samples, report.weight, report.reason) for report in found.devices]
    assert said == [
        (200, 200, ""),
        (BILLION, 1000, "it says 1000000000 samples and counts as 1000"),
        (301, 300, "it says 301 samples and counts as 300"),
    ]
    honest, all_ = weighed(site, {0: 200, 2: 300}).mean("theta"), uploaded(found).mean("theta")
    trained = site.trained(1).theta[site.shared]
    np.testing.assert_allclose(all_ - honest, (trained - honest) * 1000 / 1500, atol=1e-6)


def test_honest_devices_have_the_same_bits_with_the_bound_and_without(site):
    sums = []
    for round_, bound in ((1, 0), (2, 10**6)):
        outcome = site.begin(site.order(round_, largest_weight=bound))
        for number in range(3):
            device = site.device(number)
            task = device.wait_for_task()
            device.upload(task.id, site.update(number, task.id))
        sums.append(outcome.result().upload)
    assert sums[0] == sums[1]


def test_statistics_of_a_device_that_claims_much_weigh_its_bound(site):
    outcome = site.begin(order(site, largest_weight=25, devices=[0, 1]))
    for number in (0, 1):  # of 20 and of 27 samples
        device = site.device(number)
        task = device.wait_for_task()
        assert device.upload(task.id, update(site, number, task.id)).verdict == pb.VERDICT_COUNTED
    found = outcome.result()
    one, two = (channel_sums(data_of(site, number)) for number in (0, 1))
    share = 25 / 27
    two = type(two)(two.count // 27 * 25, two.sums * share, two.squares * share)
    expected, sums = add_up([one, two]), of_message(found.statistics)
    assert (sums.count, sums.sums.tobytes()) == (expected.count, expected.sums.tobytes())
    assert [report.weight for report in found.devices] == [20, 25]


def test_the_gateway_tells_its_site_what_devices_said_they_have(site):
    site.device(1).enrol(train_samples=120, test_samples=2 * BILLION)
    from fedali.v1 import relay_pb2

    told = {device.number: device for device in site.relay().Status(relay_pb2.StatusRequest()).devices}
    assert (told[1].train_samples, told[1].test_samples) == (120, BILLION)
    assert told[0].train_samples == 0


def test_without_a_quorum_a_round_waits_for_who_is_there_and_once_for_who_is_away(site):
    """Three heartbeats of a second, and grace; a device that missed a round is not waited for in the next."""
    asked = {"quorum": 0.0, "grace_seconds": 2.0}
    outcome = site.begin(site.order(1, **asked))
    began = time.monotonic()
    for number in (0, 1):
        answer(site, number)
    first = outcome.result()
    waited = time.monotonic() - began
    assert states(first) == {0: "done", 1: "done", 2: "offline"}
    assert waited >= 2.0
    outcome = site.begin(site.order(2, quorum=0.0, grace_seconds=3600.0))
    for number in (0, 1):
        device = site.device(number)
        task = device.wait_for_task()
        device.upload(task.id, site.update(number, task.id, 2))
    assert states(outcome.result()) == {0: "done", 1: "done", 2: "offline"}
    outcome = site.begin(site.order(3, quorum=0.0, grace_seconds=3600.0))
    back = site.device(2)
    task = back.wait_for_task()  # it is back, and waited for again
    for number in (0, 1):
        device = site.device(number)
        task = device.wait_for_task()
        device.upload(task.id, site.update(number, task.id, 3))
    assert not outcome.done()
    assert back.upload(task.id, site.update(2, task.id, 3)).verdict == pb.VERDICT_COUNTED
    assert states(outcome.result()) == {0: "done", 1: "done", 2: "done"}


def test_a_decline_after_an_answer_changes_nothing_and_the_log_says_so(site):
    outcome = site.begin(site.order(devices=[0, 1]))
    device = answer(site, 0)
    task = site.device(1).wait_for_task()
    device.call("Decline", pb.DeclineRequest(task=task.id, reason="I changed my mind"))
    answer(site, 1)
    found = outcome.result()
    assert states(found) == {0: "done", 1: "done"}
    assert_sums(found, site.expected([0, 1]))
    site.stop()
    about = [line for line in site.said if "I changed my mind" in line]
    assert len(about) == 1
    assert "a decline changes nothing" in about[0]
    assert not any("not counted" in line for line in site.said)


def test_connections_without_a_call_are_closed_and_those_that_wait_for_a_task_are_not(tmp_path):
    with ProvisionedSite(tmp_path, "idle=1") as site:
        device = site.device(0)
        polling = device.stub.NextTask.future(pb.NextTaskRequest(wait_seconds=4.0), wait_for_ready=True)
        kit = device.kit
        context = ssl.create_default_context(cafile=str(kit.authority))
        context.load_cert_chain(kit.certificate, kit.key)
        context.set_alpn_protocols(["h2"])
        idle = []
        for _ in range(5):
            plain = socket.create_connection(("127.0.0.1", site.port), timeout=ANSWER)
            idle.append(context.wrap_socket(plain, server_hostname=kit.gateway_name))
            idle[-1].sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        for one in idle:
            with one:
                while one.recv(1000):  # ends when the gateway hangs up
                    pass
        assert not polling.result(timeout=ANSWER).HasField("task")  # waited for its four seconds
