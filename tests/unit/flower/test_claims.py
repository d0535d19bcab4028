"""What a run knows of how many samples devices say they have, and what it says of who is awaited."""

from __future__ import annotations

import json

import pytest
from flwr.app import ArrayRecord

from fedali.cohort.contract import RoundSettings
from fedali.cohort.weights import Weights
from fedali.errors import CheckpointError, SettingsError
from fedali.methods import SharedState
from fedali_server.flower import records
from fedali_server.flower.relay_records import DeviceState
from fedali_server.flower.strategy import RoundResult
from fedali_server.run.claims import Claims, bounded_line
from fedali_server.run.federated import RunSettings, settings_of
from fedali_server.run.folder import RunFolder


def device(number, samples, online=True):
    return DeviceState(f"a-{number}", number, online, 0.0, "", "", False, samples, 0)


def report(number, samples, kind="train", state="done", **more):
    return {
        "device": f"a-{number}",
        "number": number,
        "samples": samples,
        "kind": kind,
        "state": state,
        **more,
    }


def test_claims_are_those_of_the_enrolment_and_then_those_of_the_latest_updates(tmp_path):
    claims = Claims(tmp_path / "claims.json", 10)
    assert not claims.begun
    claims.begin([device(0, 100), device(1, 120), device(2, 10**9), device(3, 5)])
    assert claims.weights() == Weights(1000, {3: 50})
    again = Claims(tmp_path / "claims.json", 10)  # of a run that is resumed
    assert again.begun
    assert again.weights() == claims.weights()
    again.note([report(0, 400), report(1, 10**9, state="late"), report(3, 50), report(0, 7, "evaluate")])
    assert again.weights() == Weights(1200, {3: 500})
    assert Claims(tmp_path / "none.json", 0).weights() == Weights()
    (tmp_path / "claims.json").write_text("[]")
    with pytest.raises(CheckpointError, match="cannot read"):
        Claims(tmp_path / "claims.json", 10)


def test_an_evaluation_weighs_test_data_likewise_and_says_so(tmp_path):
    claims = Claims(tmp_path / "claims.json", 10)
    reports = tuple(report(n, count, "evaluate") for n, count in enumerate((20, 30, 10**9)))
    columns = {"client": [0.0, 1.0, 2.0], "test_samples": [20.0, 30.0, 1e9], "global": [0.5, 0.6, 0.0]}
    found = claims.tests(RoundResult(1, ArrayRecord(), {}, columns, reports))
    assert found.evaluate == {**columns, "test_samples": [20.0, 30.0, 300.0]}
    assert [bounded_line(one) for one in found.reports] == [
        None,
        None,
        "a-2 says 1000000000 samples of test data and counts as 300 (--largest-weight)",
    ]
    claims.note(found.reports)
    honest = tuple(report(n, count, "evaluate") for n, count in enumerate((20, 30, 31)))
    same = RoundResult(2, ArrayRecord(), {}, {**columns, "test_samples": [20.0, 30.0, 31.0]}, honest)
    assert claims.tests(same).evaluate == same.evaluate
    more = tuple(report(n, count, "evaluate") for n, count in enumerate((250, 260, 240)))  # a-0 had 20 before
    grown = RoundResult(2, ArrayRecord(), {}, {**columns, "test_samples": [250.0, 260.0, 240.0]}, more)
    assert claims.tests(grown).evaluate["test_samples"] == [200.0, 260.0, 240.0]


def test_what_devices_may_weigh_travels_with_a_round():
    shared = records.from_shared(SharedState([0.0], []))
    for weights in (Weights(), Weights(70), Weights(70, {3: 5, 9: 60})):
        settings = RoundSettings(2, influence=0.5, weights=weights)
        assert records.read_instructions(records.instructions(settings, shared))[0] == settings


def test_a_run_of_an_earlier_version_has_no_such_bound_and_a_new_one_ten(tmp_path):
    assert RunSettings("new", 1).largest_weight == 10.0
    with pytest.raises(SettingsError, match=r"largest_weight is 0\.5; it has to be 1 to"):
        RunSettings("new", 1, largest_weight=0.5)
    (tmp_path / "run.json").write_text(json.dumps({"name": "old", "rounds": 3, "quorum": 1.0}))
    (tmp_path / "model.fedali").write_bytes(b"as it was called")
    folder = RunFolder(tmp_path)
    assert settings_of(folder).largest_weight == 0.0
    assert folder.bundle.read_bytes() == b"as it was called"
    assert RunFolder(tmp_path / "new").bundle.name == "untrained.fedali"
