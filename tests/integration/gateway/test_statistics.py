"""Rounds of statistics at a real gateway, which is killed, of joined devices, and of a site that holds data."""

from __future__ import annotations

import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from fedali.data.normalisation import add_up, channel_statistics, channel_sums
from fedali.errors import FedaliError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import task_id
from fedali.wire.statistics import StatisticsUpdate, encode_statistics, of_message
from tests.bundles import toy_data, write_full
from tests.gateways import ANSWER, EVALUATE, TRAIN, ProvisionedSite, parts, states
from tests.integration.gateway.test_kill import ask, patiently
from tests.integration.join.joined import Joined
from tests.integration.site.test_data_site import Place, reasons

STATISTICS = int(pb.TASK_KIND_STATISTICS)


def order(site, **changes):
    plain = {"round_": 0, "kind": STATISTICS, "theta": b"", "prototypes": b"", "epochs": 0, "encoding": 0}
    return site.order(**{**plain, **changes})


def data_of(site, number):
    size = 20 + 7 * number
    return 3 * number + np.random.default_rng(number).standard_normal((size, *site.manifest.input_shape))


def update(site, number, task_, **changes):
    x = data_of(site, number)
    return encode_statistics(
        StatisticsUpdate(
            **{"task": task_, "bundle": site.sha256, "samples": len(x), "sums": channel_sums(x), **changes}
        )
    )


def expected(site, numbers):
    return add_up([channel_sums(data_of(site, number)) for number in numbers])


def same(outcome, sums):
    found = of_message(outcome.statistics)
    return (found.count, found.sums.tobytes(), found.squares.tobytes()) == (
        sums.count,
        sums.sums.tobytes(),
        sums.squares.tobytes(),
    )


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path, "fold_every=2", "burst=1000000", devices=5) as site:
        yield site.put_bundle()


def test_a_round_of_statistics_from_order_to_outcome(site):
    asked = order(site)
    outcome = site.begin(asked)
    for number in (3, 0, 4):
        device = site.device(number)
        task = device.wait_for_task()
        assert (task.kind, task.round, task.id) == (STATISTICS, 0, task_id("first", 0, STATISTICS))
        assert not task.HasField("state")
        assert device.heartbeat(task.id)
        data = update(site, number, task.id)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
        other = device.upload(
            task.id, update(site, number, task.id, samples=1, sums=channel_sums(data_of(site, 1)[:1]))
        )
        assert (other.verdict, other.reason) == (
            pb.VERDICT_REFUSED,
            "another update of this device was counted",
        )
    for number, why in ((1, "unable"), (2, "unable too")):
        device = site.device(number)
        device.call("Decline", pb.DeclineRequest(task=device.wait_for_task().id, reason=why))
    found = outcome.result()
    assert states(found) == {0: "done", 1: "declined", 2: "declined", 3: "done", 4: "done"}
    assert same(found, expected(site, (0, 3, 4)))
    assert [report.samples for report in found.devices] == [20, 0, 0, 41, 48]
    assert site.begin(asked).result() == found  # recalled
    site.kill()
    site.start()
    assert site.begin(asked).result() == found


def test_training_follows_and_needs_no_statistics(site):
    site.begin(order(site, seconds=0.0)).result()
    outcome = site.begin(site.order(1, devices=[2]))
    device = site.device(2)
    task = device.wait_for_task()
    assert (task.kind, task.round) == (TRAIN, 1)
    assert device.upload(task.id, site.update(2, task.id)).verdict == pb.VERDICT_COUNTED
    assert states(outcome.result()) == {2: "done"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"samples": 19}, "of 120 values a channel; 19 samples have 114"),
        ({"sums": channel_sums(np.ones((20, 6, 3)))}, "of 3 channels; samples have 2"),
        ({"task": "0" * 32}, "for another task"),
        ({"bundle": bytes(32)}, "of another bundle"),
    ],
)
def test_an_update_that_cannot_be_used_is_refused_and_does_not_count(site, changes, why):
    outcome = site.begin(order(site, devices=[0]))
    device = site.device(0)
    task = device.wait_for_task()
    reply = device.upload(task.id, update(site, 0, task.id, **changes))
    assert reply.verdict == pb.VERDICT_REFUSED
    assert why in reply.reason
    found = outcome.result()
    assert states(found) == {0: "refused"}
    assert not found.HasField("statistics")


def test_other_updates_and_orders_are_refused(site):
    for number, data in ((0, lambda task: site.update(0, task)), (1, lambda task: bytes(30_000))):
        site.begin(order(site, run=f"run-{number}", devices=[number]))
        device = site.device(number)
        task = device.wait_for_task()
        reply = device.upload(task.id, data(task.id))
        assert reply.verdict == pb.VERDICT_REFUSED
        assert "has no statistics" in reply.reason or "the round takes 1 to" in reply.reason
    asked = site.begin(order(site, run="many", devices=[2], largest_samples=33))
    device = site.device(2)
    task = device.wait_for_task()
    assert "34 samples, and at most 33" in device.upload(task.id, update(site, 2, task.id)).reason
    assert states(asked.result()) == {2: "refused"}
    for wrong in (order(site, round_=1), site.order(0), site.order(0, EVALUATE), order(site, theta=b"1234")):
        with pytest.raises(grpc.RpcError) as error:
            site.begin(wrong).result()
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def answer(site, device, acknowledged):
    task = None
    while task is None:
        task = patiently(site, device.task, wait=5.0)
    data = update(site, device.number, task.id)
    send = lambda: device.call("Upload", parts(task.id, data, device.held(task.id, data), chunk=16))  # noqa: E731
    while (reply := patiently(site, send)).verdict == pb.VERDICT_INCOMPLETE:
        pass
    acknowledged.append((device.number, reply.verdict))


def test_a_gateway_that_is_killed_at_random_moments_loses_and_doubles_nothing(site):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    with ThreadPoolExecutor(6) as pool:
        devices = [site.device(index) for index in range(5)]
        for attempt in range(3):
            acknowledged, over = [], threading.Event()
            outcome = pool.submit(ask, site, order(site, run=f"run-{attempt}"))
            work = [pool.submit(answer, site, device, acknowledged) for device in devices]
            outcome.add_done_callback(lambda _, over=over: over.set())
            for _ in range(4):
                if over.wait(chance.expovariate(1 / 0.05)):
                    break
                site.kill()
                site.start()
            for one in work:
                one.result(ANSWER)
            found = outcome.result(ANSWER)
            assert states(found) == dict.fromkeys(range(5), "done"), f"seed {seed}"
            assert sorted(acknowledged) == [(n, pb.VERDICT_COUNTED) for n in range(5)], f"seed {seed}"
            assert same(found, expected(site, range(5))), f"seed {seed}"


def test_joined_devices_add_up_what_they_hold_or_say_why_not(tmp_path):
    with ProvisionedSite(tmp_path, devices=3) as site:
        write_full(tmp_path / "m.fedali", key=site.signer, normalisation="none")
        site.put(tmp_path / "m.fedali")
        x, y = toy_data(30, 7)
        np.savez(tmp_path / "train-1.npz", x=x[..., :2], y=y)
        np.savez(tmp_path / "train-2.npz", x=x, y=np.where(y == 1, "jump", "rest"))
        outcome = site.begin(order(site))
        with Joined(site, 0) as device, Joined(site, 1) as narrow, Joined(site, 2) as stranger:
            found = outcome.result()
            assert {report.number: (report.state, report.reason) for report in found.devices} == {
                0: ("done", ""),
                1: (
                    "declined",
                    "this device's samples are windows of 24 with 2 channels; the federation's are windows of 24 with 3 channels",
                ),
                2: ("declined", "this device has a label that is none of the federation's 3 classes"),
            }
            event = device.event("statistics", round=0)
            assert (event["verdict"], event["samples"]) == ("counted", 60)
            assert "added up 60 samples" in device.end()[1]
            assert narrow.end(None)[0] == 2
            code, said = stranger.end(None)
            assert code == 2
            assert "is 'jump', no class of this model" in said.splitlines()[-1]
        assert same(found, channel_sums(toy_data(60, 0)[0]))


def test_a_site_that_holds_data_adds_up_for_its_clients(tmp_path):
    with Place(tmp_path) as place:
        asked, held = order(place), place.hold()
        found = held.round(asked)
        xs = [toy_data(60 - 13 * index, index)[0] for index in range(3)]
        assert list(states(found).values()) == ["done"] * 3
        assert same(found, add_up([channel_sums(x) for x in xs]))
        normalised = of_message(found.statistics).normalisation(place.manifest.input_shape)
        np.testing.assert_allclose(normalised.std, channel_statistics(xs).std, rtol=1e-6)
        assert held.round(asked) == place.hold().round(asked) == found  # recalled
        shutil.rmtree(place.folder / "state" / "outcomes")
        again = place.hold().round(asked)
        assert same(again, of_message(found.statistics))
        place.write(0, "train", xs[0][:, :5], np.zeros(len(xs[0]), int))
        place.write(1, "train", xs[1], np.full(len(xs[1]), 3))
        with capture_logs() as logs:
            found = held.round(order(place, run="second", largest_samples=30))
        assert reasons(found) == {
            "a-0": (
                "declined",
                "this device's samples are windows of 5 with 3 channels; the federation's are windows of 24 with 3 channels",
            ),
            "a-1": ("declined", "this device has a label that is none of the federation's 3 classes"),
            "a-2": ("refused", "the update says 34 samples, and at most 30 are taken"),
        }
        assert not found.HasField("statistics")
        assert any(
            "a-1/train.npz: y[0] is 3; this model has the classes 0..2" in line.get("why", "")
            for line in logs
        )
        with pytest.raises(FedaliError, match="round is 1"):
            held.round(order(place, round_=1))
