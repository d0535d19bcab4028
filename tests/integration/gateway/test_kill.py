"""A gateway that is killed at any moment: what it acknowledged is in the sum, once."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from fedali.v1 import federation_pb2 as pb
from tests.gateways import ANSWER, ProvisionedSite, assert_sums, parts, states

AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
ALL = os.environ.get("FEDALI_KILLS") == "all"  # a few minutes
KILLS = 100 if ALL else 12


def patiently(site, call, *words, **options):
    """The answer of ``call``, however often the gateway goes away, unless the test is over."""
    while True:
        try:
            return call(*words, **options)
        except grpc.RpcError as error:
            if error.code() not in AWAY or site.over.is_set():
                raise


def answer(site, device, round_, acknowledged):
    """What a device does in a round, in pieces, until it is acknowledged."""
    task = None
    while task is None or task.round != round_:
        task = patiently(site, device.task, wait=5.0)
    data = site.update(device.number, task.id, round_)

    def send():
        held = device.held(task.id, data)
        return device.call("Upload", parts(task.id, data, held, chunk=64))

    while (reply := patiently(site, send)).verdict == pb.VERDICT_INCOMPLETE:
        pass
    if reply.verdict == pb.VERDICT_COUNTED:
        acknowledged.append(device.number)
    # a device that never got the answer asks again
    again = patiently(site, device.upload, task.id, data)
    assert again.verdict == reply.verdict


def ask(site, order):
    """What a node does in a round."""
    return patiently(site, lambda: site.begin(order).result())


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_and_doubles_nothing(tmp_path):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    with (
        ThreadPoolExecutor(6) as pool,
        ProvisionedSite(tmp_path, "fold_every=2", "burst=1000000", devices=5) as site,
    ):
        site.put_bundle()
        devices, kills, round_ = [site.device(index) for index in range(5)], 0, 0
        while kills < KILLS:
            round_ += 1
            acknowledged = []
            outcome = pool.submit(ask, site, site.order(round_=round_))
            work = [pool.submit(answer, site, device, round_, acknowledged) for device in devices]
            over = threading.Event()
            outcome.add_done_callback(lambda _, over=over: over.set())
            while not over.wait(chance.expovariate(1 / 0.03)) and kills < KILLS:
                site.kill()
                site.start()
                kills += 1
            for one in work:
                one.result(ANSWER)
            found = outcome.result(ANSWER)
            assert states(found) == dict.fromkeys(range(5), "done"), f"seed {seed}"
            assert sorted(acknowledged) == [0, 1, 2, 3, 4], f"seed {seed}"
            assert_sums(found, site.expected(range(5), round_))


PROGRAM = """
import os, signal, sys
from fedali_server.gateway.__main__ import main

kind, left = sys.argv.pop(1), int(sys.argv.pop(1))

def until_killed(call):
    def wrapped(*words, **options):
        global left
        left -= 1
        last = left == 0
        if last and kind == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*words, **options)
        finally:
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

for name in ("fsync", "rename", "replace", "unlink", "pwrite", "write", "ftruncate", "rmdir", "mkdir"):
    setattr(os, name, until_killed(getattr(os, name)))
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "first"), [("before", 1), ("after", 6)])
def test_killed_at_any_step_on_the_disk_it_loses_and_doubles_nothing(tmp_path, kind, first):
    """Real kills, at the first, second, ... call that changes what is on the disk."""
    with ThreadPoolExecutor(4) as pool, ProvisionedSite(tmp_path, "fold_every=2", "burst=1000000") as site:
        site.put_bundle()
        devices = [site.device(index) for index in range(3)]
        for round_, step in enumerate(range(1, 200) if ALL else range(first, 200, 10), 1):
            site.kill()
            acknowledged = []
            outcome = pool.submit(ask, site, site.order(round_=round_))
            work = [pool.submit(answer, site, device, round_, acknowledged) for device in devices]
            site.start(("-c", PROGRAM, kind, str(step)), wait=False)
            over = threading.Event()
            outcome.add_done_callback(lambda _, over=over: over.set())
            while not over.wait(0.02) and site.process.poll() is None:
                pass
            survived = site.process.poll() is None
            if not survived:
                site.kill()
                site.start()
            for one in work:
                one.result(ANSWER)
            found = outcome.result(ANSWER)
            assert states(found) == dict.fromkeys(range(3), "done"), step
            assert sorted(acknowledged) == [0, 1, 2], step
            assert_sums(found, site.expected(range(3), round_))
            if survived:
                assert step > 30  # a round has many steps: these were all of them
                break
        else:
            pytest.fail("there are more steps than were tried")


def test_a_deadline_goes_on_while_the_gateway_is_dead(tmp_path):
    """Its seconds are those of the round, not of the process."""
    with ProvisionedSite(tmp_path) as site:
        site.put_bundle()
        order = site.order(seconds=0.5)
        site.begin(order)
        device = site.device(0)
        task = device.wait_for_task()
        site.kill()
        threading.Event().wait(0.6)  # the round's time
        site.start()
        assert device.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_LATE
        assert set(states(site.begin(order).result()).values()) <= {"late", "offline"}


def test_files_that_are_damaged_cost_one_round_and_say_so(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        site.put_bundle()
        order = site.order()
        site.begin(order)
        device = site.device(0)
        task = device.wait_for_task()
        assert device.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_COUNTED
        site.kill()
        (file,) = (site.state / "rounds/first/1-train/incoming").iterdir()
        file.write_bytes(np.random.default_rng(0).bytes(100))
        site.start()
        (said,) = [line for line in site.said if "a round is lost" in line]
        assert f"{file} is damaged" in said
        outcome = site.begin(order)  # done anew
        for index in range(3):
            device = site.device(index)
            task = device.wait_for_task()
            assert device.upload(task.id, site.update(index, task.id)).verdict == pb.VERDICT_COUNTED
        assert_sums(outcome.result(), site.expected(range(3)))


def test_what_counted_before_may_be_damaged_without_harm(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        site.put_bundle()
        device = site.device(0)
        outcome = site.begin(site.order(1, devices=[0]))
        task = device.wait_for_task()
        update = site.update(0, task.id)
        assert device.upload(task.id, update).verdict == pb.VERDICT_COUNTED
        outcome.result()
        site.begin(site.order(2, devices=[1]))
        site.device(1).wait_for_task()
        assert device.upload(task.id, update).verdict == pb.VERDICT_COUNTED
        assert device.upload(task.id, site.update(1, task.id)).verdict == pb.VERDICT_LATE
        assert site.device(2).upload(task.id, update).verdict == pb.VERDICT_LATE
        site.kill()
        (site.state / "counted.json").write_text("[[0, ")
        site.start()
        (said,) = [line for line in site.said if "what counted before is lost" in line]
        assert "counted.json" in said
        device = site.device(0)
        assert device.upload(task.id, update).verdict == pb.VERDICT_LATE
        assert device.upload(task.id, site.update(1, task.id)).verdict == pb.VERDICT_LATE
