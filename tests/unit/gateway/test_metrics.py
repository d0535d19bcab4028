"""What a device may report of a task."""

from __future__ import annotations

import pytest

from fedali.errors import WireError
from fedali_server.gateway.rounds.metrics import checked


@pytest.mark.parametrize("value", [-0.1, 1.5, 50.0, 1e300])
@pytest.mark.parametrize(("kind", "name"), [(1, "personalisation"), (1, "validation_f1"), (2, "global")])
def test_a_score_that_cannot_be_is_refused(kind, name, value):
    with pytest.raises(WireError, match=f"metric {name} is .*; it is from 0 to 1"):
        checked(kind, {name: value})


def test_metrics_have_the_names_of_the_protocol():
    sent = {"client": 3.0, "samples": 9.0, "test_samples": 1.0, "round": 4.0, "method": 0.0}
    assert checked(1, {"train_loss": 7.5, "personalisation": 1.0, **sent}) == {
        "train_loss": 7.5,
        "personalisation": 1.0,
    }
    assert checked(2, {"global": 0.5, **sent}) == {"global": 0.5}
    assert checked(3, sent) == {}


def test_who_hears_first_reports_its_answer_when_it_evaluates():
    sent = {"global": 0.5, "personalisation": 0.75, "validation_f1": 0.25}
    assert checked(2, sent, late=True) == sent
    assert checked(1, {"train_loss": 3.0}, late=True) == {"train_loss": 3.0}
    with pytest.raises(
        WireError, match="personalisation is of the task to evaluate, and the task was to train"
    ):
        checked(1, {"personalisation": 0.5}, late=True)
    with pytest.raises(WireError, match=r"metric validation is 1\.5; it is from 0 to 1"):
        checked(2, {"validation": 1.5}, late=True)


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        (1, "global", "global is of the task to evaluate, and the task was to train"),
        (1, "global_f1", "and the task was to train"),
        (2, "personalisation", "personalisation is of the task to train, and the task was to evaluate"),
        (2, "train_loss", "and the task was to evaluate"),
        (3, "validation", "and the task was to add up"),
    ],
)
def test_a_metric_of_what_nobody_asked_about_is_refused(kind, name, why):
    with pytest.raises(WireError, match=why):
        checked(kind, {name: 0.5})
