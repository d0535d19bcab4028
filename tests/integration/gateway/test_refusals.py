"""What a real gateway process does with updates that are wrong, and that the rest of the round counts."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import task_id
from tests.gateways import EVALUATE, TRAIN, ProvisionedSite, assert_sums, states, tensor


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        yield site.put_bundle()


def changed(site, number, task, change):
    message = pb.Update.FromString(site.update(number, task))
    change(message)
    return message.SerializeToString()


def theta(values):
    return lambda update: update.theta.CopyFrom(tensor(values))


def put(**fields):
    def change(update):
        for name, value in fields.items():
            setattr(update, name, value)

    return change


def with_metric(name, value):
    return lambda update: update.metrics.update({name: value})


S = 60  # the shared part of the small bundle
WRONG = {
    "theta too long": (theta(np.zeros(S + 1)), "61 numbers, not 60"),
    "theta too short": (theta(np.zeros(S - 1)), "59 numbers, not 60"),
    "theta empty": (theta([]), "0 numbers, not 60"),
    "a NaN": (theta([np.nan] * S), "not finite"),
    "an infinity": (theta([0.0] * (S - 1) + [np.inf]), "not finite"),
    "too far away": (theta(np.full(S, 1000.0)), "from the round's, and at most"),
    "prototypes of another shape": (
        lambda u: u.prototypes.CopyFrom(tensor(np.zeros(5))),
        "5 numbers, not 10",
    ),
    "prototypes not finite": (lambda u: u.prototypes.CopyFrom(tensor([-np.inf] * 10)), "not finite"),
    "prototypes too long": (lambda u: u.prototypes.CopyFrom(tensor([1e3] * 10)), "long, and at most"),
    "more data than numbers": (
        lambda u: setattr(u.theta, "data", u.theta.data + b"1234"),
        "244 bytes for 60",
    ),
    "no theta": (lambda u: u.ClearField("theta"), "one of theta and prototypes"),
    "no tensors": (lambda u: (u.ClearField("theta"), u.ClearField("prototypes")), "has no tensors"),
    "an encoding that is none": (lambda u: setattr(u.theta, "encoding", 9), "encoding is 9"),
    "another round": (put(task=task_id("first", 2, TRAIN)), "for another task"),
    "another run": (put(task=task_id("second", 1, TRAIN)), "for another task"),
    "no task": (put(task=""), "task"),
    "another bundle": (put(bundle=bytes(32)), "of another bundle"),
    "no samples": (put(samples=0), "samples"),
    "too many samples": (put(samples=10**9 + 1), "samples"),
    "more samples than the run takes": (put(samples=1001), "says 1001 samples, and at most 1000 are taken"),
    "a metric that is not finite": (with_metric("train_loss", float("nan")), "finite"),
    "a metric with a strange name": (with_metric("a\nb", 1.0), "name"),
    "too many metrics": (lambda u: u.metrics.update({f"m{n}": 1.0 for n in range(40)}), "metrics"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_update_that_cannot_be_used_is_refused_and_the_round_goes_on(site, name):
    change, why = WRONG[name]
    outcome = site.begin(site.order(largest_step=10.0, largest_samples=1000))
    bad = site.device(1)
    task = bad.wait_for_task()
    data = changed(site, 1, task.id, change)
    reply = bad.upload(task.id, data)
    assert reply.verdict == pb.VERDICT_REFUSED
    assert why in reply.reason
    assert reply.reason.isprintable()
    again = bad.upload(task.id, site.update(1, task.id))  # no second try
    assert (again.verdict, again.reason) == (pb.VERDICT_REFUSED, reply.reason)
    assert not bad.heartbeat(task.id)
    for index in (0, 2):
        device = site.device(index)
        task = device.wait_for_task()
        assert device.upload(task.id, site.update(index, task.id)).verdict == pb.VERDICT_COUNTED
    found = outcome.result()
    assert states(found) == {0: "done", 1: "refused", 2: "done"}
    assert found.devices[1].reason == reply.reason
    assert_sums(found, site.expected([0, 2]))


@pytest.mark.parametrize(
    ("moved", "longer", "verdict"),
    [
        (0.49, 9.9, pb.VERDICT_COUNTED),
        (0.51, 1.0, pb.VERDICT_REFUSED),
        (0.1, 10.1, pb.VERDICT_REFUSED),
    ],
)
def test_bounds_are_where_the_state_of_the_round_says(site, moved, longer, verdict):
    """Half a norm of theta, and ten times the longest prototype: one that points elsewhere is as long as it is."""
    start = site.start_state.theta[site.shared].astype(np.float64)
    prototypes = {
        name: rows.astype(np.float64)
        for name, rows in site.layouts.prototypes.unflatten(site.start_state.prototypes).items()
    }
    away = np.zeros(S)
    away[3] = moved * max(1.0, np.sqrt((start**2).sum()))
    for rows in prototypes.values():
        length = max(1.0, *np.sqrt((rows**2).sum(-1)).ravel())
        rows[...] = 0
        rows[..., 0] = -longer * length
    site.begin(site.order(devices=[0], largest_step=0.5))
    device = site.device(0)
    task = device.wait_for_task()

    def change(update):
        update.theta.CopyFrom(tensor(start + away))
        update.prototypes.CopyFrom(tensor(np.concatenate([rows.ravel() for rows in prototypes.values()])))

    assert device.upload(task.id, changed(site, 0, task.id, change)).verdict == verdict


def test_without_bounds_what_cannot_be_summed_is_refused(site):
    outcome = site.begin(site.order(devices=[0, 1]))
    for index, size, verdict in ((0, 3e38, pb.VERDICT_REFUSED), (1, 1e6, pb.VERDICT_COUNTED)):
        device = site.device(index)
        task = device.wait_for_task()
        long = changed(site, index, task.id, lambda u, size=size: u.prototypes.CopyFrom(tensor([size] * 10)))
        assert device.upload(task.id, long).verdict == verdict
    assert states(outcome.result()) == {0: "refused", 1: "done"}


def test_tensors_in_an_evaluation_are_refused(site):
    site.begin(site.order(kind=EVALUATE))
    device = site.device(0)
    task = device.wait_for_task()
    reply = device.upload(task.id, site.update(0, task.id))
    assert (reply.verdict, reply.reason) == (
        pb.VERDICT_REFUSED,
        "the update has tensors, and the task was to evaluate",
    )


def test_updates_of_other_rounds_come_late(site):
    site.begin(site.order())
    device = site.device(0)
    task = device.wait_for_task()
    for other in (task_id("first", 2, TRAIN), task_id("first", 1, EVALUATE), task_id("second", 1, TRAIN)):
        assert device.upload(other, site.update(0, other)).verdict == pb.VERDICT_LATE
        assert not device.heartbeat(other)
    assert device.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_COUNTED


def test_an_update_of_another_device_counts_for_its_sender_alone(site):
    """Whoever sends it: the certificate says whose it is."""
    outcome = site.begin(site.order(devices=[0, 1]))
    first, second = site.device(0), site.device(1)
    task = first.wait_for_task()
    data = site.update(0, task.id)
    assert first.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    assert second.held(task.id, data) == 0
    assert second.upload(task.id, data).verdict == pb.VERDICT_COUNTED
    assert states(outcome.result()) == {0: "done", 1: "done"}


def test_bytes_that_are_not_their_digest_are_asked_for_again_twice(site):
    outcome = site.begin(site.order(devices=[0]))
    device = site.device(0)
    task = device.wait_for_task()
    data = site.update(0, task.id)
    for attempt in range(3):
        reply = device.upload(task.id, data, sha256=bytes(32))
        assert reply.verdict == (pb.VERDICT_REFUSED if attempt == 2 else pb.VERDICT_INCOMPLETE)
        assert reply.received == 0
    assert states(outcome.result()) == {0: "refused"}
