"""Devices and gateways that are killed at any moment: every round counts once, with the bits of one that was not disturbed."""

from __future__ import annotations

import random
import signal
import time

import numpy as np
import pytest

from fedali.wire.tensors import Encoding
from tests.gateways import states, uploaded
from tests.integration.join.joined import SAMPLES, Joined, Undisturbed, metrics_of
from tests.marks import slow


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
        assert uploaded(found).sums["theta"].weight == SAMPLES
        assert (uploaded(found).sums["theta"].total == SAMPLES * theta.astype(np.float64)).all()
        assert (uploaded(found).sums["prototypes"].total == SAMPLES * prototypes.astype(np.float64)).all()
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
    "before it is uploaded": ("fedali_client.join.connection:GatewayConnection:upload", "before", 1),
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
        assert uploaded(found).sums["theta"].weight == SAMPLES
        assert (uploaded(found).sums["theta"].total == SAMPLES * theta.astype(np.float64)).all()
        assert (uploaded(found).sums["prototypes"].total == SAMPLES * prototypes.astype(np.float64)).all()
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
    assert (uploaded(found).sums["theta"].total == SAMPLES * theta.astype(np.float64)).all()
    assert (uploaded(found).sums["prototypes"].total == SAMPLES * prototypes.astype(np.float64)).all()
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
        assert (uploaded(outcome).sums["theta"].total == SAMPLES * theta.astype(np.float64)).all()
        assert (uploaded(outcome).sums["prototypes"].total == SAMPLES * prototypes.astype(np.float64)).all()
        code, said = device.end()
        assert code == 143
        assert said.count("round 1: ") == 1
    expected.close()
