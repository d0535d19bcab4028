"""A federation whose operator has no sample: a schema, statistics in round 0, and trainings after it, with real processes."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from fedali.bundle.file import read_bundle
from fedali.data import load_digits_dataset
from fedali.data.normalisation import channel_statistics
from fedali.schema import Schema
from fedali_simulations.federate import exporting
from fedali_simulations.template import to_toml
from tests.federations import Place

# Of what pip install "fedali[site]" does not bring.
NOT_AT_A_SITE = "fedali_simulations,fedali_client,matplotlib,pandas,pyarrow,tomlkit,sklearn,pyinstrument,ray"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("schema")) as running:
        desk = running.folder / "desk"  # where the operator sits: nothing else is there
        desk.mkdir()
        (desk / "scans.toml").write_text(Schema.of(load_digits_dataset()).to_toml())
        data = running.scenario.data.model_copy(update={"source": None, "schema": "scans.toml"})
        (desk / "study.toml").write_text(to_toml(running.scenario.model_copy(update={"data": data})))
        yield running


def run(place, name, *words):
    return place.start_run(name, *words, bundle="study.toml", cwd=place.folder / "desk")


def whole(place):
    """The statistics of a run of all devices, which is done once."""
    if not (place.folder / "schema").exists():
        place.finish(run(place, "schema"), "schema")
    return numbers(statistics(place, "schema"))


def training_data(place, devices):
    return [np.load(place.folder / "data" / device / "train.npz")["x"] for device in devices]


def statistics(place, name):
    return json.loads((place.folder / name / "round-0" / "statistics.json").read_text())


def numbers(found):
    return found["count"], found["sums"], found["squares"]


def normalisation(place, name):
    bundle = read_bundle(
        place.folder / name / "fedali-paper" / "seed-0" / "untrained.fedali", None, allow_unsigned=True
    )
    return bundle.manifest.normalisation


def pooled(place, name, devices):
    """Whether the run's normalisation is that of the devices' data taken together."""
    found, wanted = normalisation(place, name), channel_statistics(training_data(place, devices))
    assert found.kind == "global"
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=3e-7)
    np.testing.assert_allclose(found.std, wanted.std, rtol=3e-7)
    return True


@pytest.mark.slow
def test_a_run_from_a_schema_is_one_from_pooled_data(place, tmp_path):
    whole(place)
    result = json.loads((place.folder / "schema" / "results.json").read_text())
    assert sorted(path.name for path in (place.folder / "desk").iterdir()) == ["scans.toml", "study.toml"]
    found = statistics(place, "schema")
    assert [(r["device"], r["state"]) for r in found["reports"]] == [
        (name, "done") for name in place.local.devices
    ]
    assert found["count"] == sum(x.size for x in training_data(place, place.local.devices))
    assert pooled(place, "schema", place.local.devices)
    for facts in place.rounds("schema"):
        assert [report["state"] for report in facts["reports"]] == ["done"] * 12
    by_source, _ = place.run_here("source")
    assert np.array_equal(normalisation(place, "schema").mean, normalisation(place, "source").mean)
    expected = {line["measure"]: line["accuracy"] for line in by_source.to_dict()["table"]}
    for line in result["table"]:
        assert line["accuracy"] == pytest.approx(expected[line["measure"]], abs=0.01, nan_ok=True)
    bundle = exporting.export(place.folder / "schema", tmp_path / "m.fedali", key=place.kit.signing_key)
    assert bundle.manifest.classes == tuple("0123456789")
    assert bundle.manifest.data.channels == ("grey",)
    assert bundle.manifest.normalisation.std == normalisation(place, "schema").std


@pytest.mark.slow
def test_killed_in_round_0_and_resumed_it_has_the_same_bits(place):
    local, expected = place.local, whole(place)
    local.processes["device-0"].kill_all()
    first = run(place, "killed")
    journals = f"kits/{local.sites[0]}/state/rounds/statistics-*/0-statistics/journal.jsonl"
    place.wait(
        lambda: any('"answer":' in path.read_text() for path in place.folder.glob(journals)),
        meanwhile=lambda: place.alive(first, "killed"),
    )
    first.kill()
    first.wait()
    for name in local.sites:
        local.processes[name].kill_all()
        local.processes[name].start()
    (place.folder / "desk" / "scans.toml").rename(place.folder / "desk" / "away.toml")  # the run has its own
    try:
        second = place.start_run("killed")
        place.wait(
            lambda: "site takes part" in place.said("killed"), meanwhile=lambda: place.alive(second, "killed")
        )
        second.kill()
        second.wait()
        local.start_device("device-0")
        place.finish(place.start_run("killed"), "killed")
    finally:
        (place.folder / "desk" / "away.toml").rename(place.folder / "desk" / "scans.toml")
    assert numbers(statistics(place, "killed")) == expected
    before = (place.folder / "killed" / "results.json").read_text()
    place.finish(place.start_run("killed"), "killed")  # complete: nothing is done again
    assert (place.folder / "killed" / "results.json").read_text() == before


@pytest.mark.slow
def test_a_site_with_data_adds_up_too_and_a_device_that_was_late_trains_all_the_same(place):
    local = place.local
    local.processes["device-0"].kill_all()
    replaced = [local.processes[name] for name in (*local.devices[3:], "site-b")]
    for process in replaced:
        process.signal(signal.SIGTERM)
    for process in replaced:
        process.end()
    words = ("--data", str(local.folder / "data"), "--engine", "onnx", "--workers", "1")
    started = ("fedali", "site", "start", str(local.kit("site-b")), *words)
    local.start("site-b with data", "tests.without", NOT_AT_A_SITE, *started)
    one = run(place, "mixed", "--quorum", "0.6", "--grace", "8")
    found = place.folder / "mixed" / "round-0" / "statistics.json"
    place.wait(found.exists, meanwhile=lambda: place.alive(one, "mixed"))
    local.start_device("device-0")
    place.finish(one, "mixed")
    states = {report["device"]: report["state"] for report in statistics(place, "mixed")["reports"]}
    assert states == {"device-0": "offline", **dict.fromkeys(local.devices[1:], "done")}
    assert pooled(place, "mixed", local.devices[1:])
    (warned,) = [line for line in place.said("mixed").splitlines() if "not in the statistics" in line]
    assert "device=device-0" in warned
    assert "offline: was not heard of" in warned
    trained = [r for facts in place.rounds("mixed") for r in facts["reports"] if r["kind"] == "train"]
    assert "done" in {report["state"] for report in trained if report["device"] == "device-0"}


@pytest.mark.slow
def test_where_no_data_fit_it_says_why_and_asks_again_when_resumed(place):
    local, expected = place.local, whole(place)
    files = {name: place.folder / "data" / name / "train.npz" for name in local.devices}
    kept = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        np.savez(path, x=np.zeros((9, 3, 8, 8), np.float32), y=np.arange(9))
    one = run(place, "unfit", "--rounds", "1")
    assert one.wait(240) == 1
    last = place.said("unfit").strip().splitlines()[-1]
    assert last.startswith("fedali: round 0: no device's data could be added up")
    why = "this device's samples are images of 8 x 8 with 3 channels; the federation's are images of 8 x 8 with 1 channel"
    assert all(f"{name} declined: {why}" in last for name in local.devices)
    for name, path in files.items():
        path.write_bytes(kept[name])
    for name in local.devices:  # ended by what a person had to mend
        local.processes[name].end()
        local.start_device(name)
    place.finish(place.start_run("unfit"), "unfit")
    assert numbers(statistics(place, "unfit")) == expected
