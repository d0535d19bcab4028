"""Joined devices that answer by a gate: killed at any moment, they answer with the bits of one that was not disturbed."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.bundles import toy_data, write_full
from tests.gateways import EVALUATE, ProvisionedSite, states
from tests.integration.join.joined import SAMPLES, Joined, Undisturbed, metrics_of
from tests.integration.join.test_kill import SUICIDE
from tests.marks import slow

GATE = {"answer": "gate"}
MOMENTS = {
    "before it makes its answer": ("fedali_client.state.answer:AnswerFile:write", "before", 1),
    "when the answer is there": ("fedali_client.state.answer:AnswerFile:write", "after", 1),
    "before the evaluation is uploaded": (
        "fedali_client.join.connection:GatewayConnection:upload",
        "before",
        1,
    ),
}


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        write_full(tmp_path / "m.fedali", key=site.signer, method="fedavg+gate", alp=None, options=GATE)
        site.put(tmp_path / "m.fedali")
        yield site


@pytest.mark.parametrize("moment", slow(MOMENTS, lambda moment: moment != "before it makes its answer"))
def test_a_kill_between_training_and_answer_changes_nothing(site, moment):
    """A second round is begun without the evaluation of the first having been asked for again: it has heard by then, or hears now."""
    start, expected = site.start_state, Undisturbed(site, 0)
    tests = toy_data(SAMPLES, 50)
    outcome = site.begin(site.order(1, epochs=2, devices=[0]))
    with Joined(site, 0) as device:
        assert states(outcome.result()) == {0: "done"}
        device.event("train", verdict="counted")
    assert sorted(metrics_of(outcome.result(), 0)) == ["train_accuracy", "train_loss"]
    expected.client.receive(start.theta, start.prototypes, 1, 0.2)
    expected.client.fit_round(expected.x, expected.y, 2, [7, 0, 1, 0])
    new = (start.theta + expected.client.update().theta) / 2
    judged = site.begin(site.order(1, EVALUATE, devices=[0], theta=new.tobytes()))
    where, when, count = MOMENTS[moment]
    with Joined(site, 0, program=("-c", SUICIDE, where, when, str(count))) as device:
        assert device.end(None)[0] == -signal.SIGKILL
    with Joined(site, 0) as device:
        assert states(judged.result()) == {0: "done"}
        device.event("evaluate", verdict="counted")
        _, said = device.end()
        assert " % of own test data, this device on " in said
    expected.client.hear(new, start.prototypes, 0.2, expected.x)
    own, theirs = (
        expected.client.evaluate(*tests),
        expected.client.evaluate_shared(new, start.prototypes, 0.2, *tests),
    )
    assert metrics_of(judged.result(), 0) == {
        "global": theirs.accuracy,
        "global_f1": theirs.macro_f1,
        "personalisation": own.accuracy,
        "personalisation_f1": own.macro_f1,
    }
    expected.close()


def test_a_device_that_missed_the_evaluation_hears_when_the_next_round_begins(site):
    start, expected = site.start_state, Undisturbed(site, 0)
    outcome = site.begin(site.order(1, epochs=2, devices=[0]))
    with Joined(site, 0, test=False) as device:
        outcome.result()
        device.event("train", verdict="counted")
        new = start.theta + np.float32(0.01)
        site.begin(site.order(2, epochs=1, devices=[0], theta=new.tobytes())).result()
        device.event("train", round=2, verdict="counted")
        device.end()
    expected.client.receive(start.theta, start.prototypes, 1, 0.2)
    expected.client.fit_round(expected.x, expected.y, 2, [7, 0, 1, 0])
    expected.client.hear(new, start.prototypes, 0.2, expected.x)
    (found,) = device.state.rglob("answer.safetensors")
    wanted = next((site.folder / "expected-0").rglob("answer.safetensors"))
    ours, theirs = (load_file(path) for path in (found, wanted))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name
    expected.close()
