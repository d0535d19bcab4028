"""Rounds through a real gateway process, over mTLS."""

from __future__ import annotations

import pytest

from fedali.v1 import federation_pb2 as pb
from tests.gateways import Site, assert_sums, states


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as site:
        yield site.put_bundle()


def test_a_round_trains_and_a_round_evaluates(site):
    outcome = site.begin(site.order())
    for index in range(3):
        device = site.device(index)
        enrolled = device.enrol()
        assert (enrolled.federation, enrolled.device) == ("wards", f"a-{index}")
        task = device.wait_for_task()
        assert list(task.entropy) == [7, 0, 1, device.number]
        assert device.download(task.bundle) == site.bundle
        assert device.heartbeat(task.id)
        data = site.update(index, task.id)
        assert device.upload(task.id, data).verdict == pb.VERDICT_COUNTED
        assert not device.heartbeat(task.id)
    found = outcome.result()
    assert states(found) == {0: "done", 1: "done", 2: "done"}
    assert_sums(found, site.expected(range(3)))
    assert [dict(report.metrics) for report in found.devices] == [{"train_loss": 0.5 + n} for n in range(3)]
