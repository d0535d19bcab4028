"""What a manifest says of a schedule, of weight decay and of clipping; keys that bundles before did not have."""

from __future__ import annotations

import json

import pytest

from fedali.bundle.file import parse_bundle, write_bundle
from fedali.errors import SettingsError
from fedali.optimizers.schedules import CONSTANT, RateSchedule
from fedali_server.flower.link import Link
from fedali_server.run.federated import Operator, RunSettings, start_run
from fedali_server.run.folder import RunFolder
from tests import small_bundles as bundles
from tests.unit.bundle.altered import KEY, TRUSTED, altered, entries_of, refused

SCHEDULE = RateSchedule("cosine", warmup=1, rounds=5)


def _adam(**more):
    return {**bundles.fields()["optimizer"], **more}


def test_they_are_read_back_and_left_out_where_they_are_off(good, tmp_path):
    path = tmp_path / "one.fedali"
    write_bundle(
        path, bundles.fields(schedule=SCHEDULE, optimizer=_adam(clip_norm=1.0)), bundles.parts(), KEY
    )
    found = parse_bundle(path.read_bytes(), TRUSTED).manifest
    assert (found.schedule, found.optimizer) == (SCHEDULE, _adam(clip_norm=1.0))
    manifest = json.loads(entries_of(path.read_bytes())["manifest.json"])
    assert manifest["schedule"] == {"kind": "cosine", "warmup": 1, "rounds": 5}
    plain = json.loads(entries_of(good["full"])["manifest.json"])
    assert "schedule" not in plain
    assert parse_bundle(good["full"], TRUSTED).manifest.schedule == CONSTANT


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("schedule", {"kind": "cosinus"}, "schedule: kind cannot be 'cosinus'"),
        ("schedule", {"kind": "cosine"}, "a cosine over 0 rounds has none left"),
        ("schedule", {"kind": "step", "drop": 0}, "drops every 1 or more"),
        ("schedule", {"kind": "step", "every": 1.5}, "every cannot be 1.5"),
        ("schedule", {"speed": 2}, "unknown key 'speed'"),
        ("optimizer", _adam(weight_decay=-1), "weight_decay cannot be -1"),
        ("optimizer", _adam(clip_norm=True), "clip_norm cannot be True"),
        ("optimizer", _adam(weight_decay=0.1), "train.onnx has the inputs"),  # where shrink is missing
    ],
)
def test_what_makes_no_sense_is_refused(good, key, value, words):
    refused(altered(good["full"], lambda manifest: manifest.update({key: value})), words)


def test_a_run_beyond_a_cosines_end_is_refused_before_it_begins(tmp_path):
    path = tmp_path / "one.fedali"
    write_bundle(path, bundles.fields(schedule=SCHEDULE), bundles.parts(), KEY)
    operator = Operator("ours", Link("localhost:1"), TRUSTED[0])
    with pytest.raises(SettingsError, match=r"ends after 5 rounds, and there are 6.*Run as many, or export"):
        start_run(RunFolder(tmp_path / "run"), path, RunSettings("one", rounds=6), operator)
    start_run(RunFolder(tmp_path / "run"), path, RunSettings("one", rounds=5), operator)
