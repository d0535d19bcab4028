"""A site that holds data, whose clients answer by a gate: as devices do, and after a restart too."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.methods import SharedState
from tests.gateways import EVALUATE, states, uploaded
from tests.integration.site.test_data_site import Device, Place


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path, method="fedavg+gate", alp=None, options={"answer": "gate"}) as made:
        yield made


def test_its_clients_answer_as_devices_do_after_a_restart_too(place):
    start = place.start_state
    order = place.order(1, influence=0.0, epochs=2)
    outcome = place.hold().round(order)
    new = place.method.aggregate(uploaded(outcome), start, place.layouts)
    for report in outcome.devices:
        assert sorted(report.metrics) == ["train_accuracy", "train_loss"]
    place.start_state = new
    judged = place.hold().round(place.order(1, EVALUATE, influence=0.0))  # another process, as it were
    again = place.hold("other")
    place.start_state = start
    again.round(order)
    place.start_state = new
    assert (
        again.round(place.order(1, EVALUATE, influence=0.0)).devices[1].metrics == judged.devices[1].metrics
    )
    total = np.zeros(new.theta.size)
    for index, report in enumerate(judged.devices):
        with Device(place, index) as device:
            client, (x, y) = device.client, device.part("train")
            client.receive(start.theta, start.prototypes, 1, 0.0)
            client.fit_round(x, y, 2, [order.seed, 0, 1, index])
            total += len(x) * client.update().theta
            held_back = device.part("validation")
            client.hear(new.theta, new.prototypes, 0.0, x, held_back and held_back[0])
            for metric, name in (("validation", "validation"), ("personalisation", "test")):
                pair = device.part(name)
                assert (metric in report.metrics) == (pair is not None)
                if pair is not None:
                    found = client.evaluate(*pair)
                    assert report.metrics[metric] == pytest.approx(found.accuracy, abs=1.5 / len(pair[0]))
            assert 0.1 < client.answer(device.part("test")[0])[1].mean() < 0.99
    sent = uploaded(outcome).mean("theta")
    count = sum(report.samples for report in outcome.devices)
    assert np.abs(sent - total / count)[place.certain].max() < 1e-3


def test_who_did_not_train_in_the_round_says_how_good_the_servers_model_is_alone(place):
    site = place.hold()
    site.round(place.order(1, influence=0.0, devices=[0]))
    theta = place.start_state.theta + np.float32(0.01)
    place.start_state = SharedState(theta, place.start_state.prototypes)
    judged = site.round(place.order(1, EVALUATE, influence=0.0))
    assert set(states(judged).values()) == {"done"}
    named = [sorted(report.metrics) for report in judged.devices]
    scores = ["global", "global_f1", "personalisation", "personalisation_f1", "validation", "validation_f1"]
    assert named == [scores, scores[:2], scores[:2]]
    later = site.round(place.order(2, EVALUATE, influence=0.0))
    assert [sorted(report.metrics) for report in later.devices] == [scores[:2]] * 3
