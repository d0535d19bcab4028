"""A site that holds data: its clients' rounds are those of devices, and survive what a gateway survives."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from fedali import methods
from fedali.bundle.file import write_bundle
from fedali.errors import BundleError, DataError, FedaliError, KitError, SettingsError
from fedali_client import EdgeClient
from fedali_server.commands.site import start
from fedali_server.provisioning.revoke import revoke
from fedali_server.site.relay import RoundKeeper
from fedali_server.site.site import DataSite
from tests import small_bundles
from tests.bundles import toy_data, write_full
from tests.gateways import EVALUATE, ProvisionedSite, states, uploaded

DEVICES = 3
HEAD = {"personal": True, "options": {"personal": "head"}}
KEEP = {"normalisation": "client", "options": {"local_prototypes": "keep"}}


class Place(ProvisionedSite):
    """A provisioned site without a gateway, data of its devices, and a bundle."""

    def __init__(self, folder, **bundle):
        super().__init__(folder, devices=DEVICES)
        self.data = folder / "data"
        for index in range(DEVICES):
            self.write(index, "train", *toy_data(60 - 13 * index, index))
            self.write(index, "test", *toy_data(30, 50 + index))
        self.write(0, "validation", *toy_data(20, 90))
        self.path = folder / "model.fedali"
        self.use(write_full(self.path, key=self.signer, **bundle))

    def __enter__(self):
        return self

    def use(self, bundle):
        self.read, self.manifest = bundle, bundle.manifest
        self.bundle = self.path.read_bytes()
        self.sha256 = hashlib.sha256(self.bundle).digest()
        self.method = methods.build_method(self.manifest.method.name, self.manifest.method.options)
        self.layouts = methods.Layouts(self.manifest.layouts.parameters, self.manifest.layouts.prototypes)
        self.shared = methods.shared_indices(self.method, self.layouts.parameters)
        # A bias before a GroupNorm of one channel has a gradient of nothing but rounding, which Adam makes steps of.
        noise = self.layouts.parameters.select(["convolutions.*.bias"])
        self.certain = ~np.isin(self.shared, noise)
        start = bundle.state()
        self.start_state = methods.SharedState(start["shared_theta"], start["shared_prototypes"] + 0.01)

    def write(self, index, part, x, y, **more):
        folder = self.data / f"a-{index}"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{part}.npz", x=x, y=y, **more)

    def hold(self, state="state", data=None, **options) -> RoundKeeper:
        """The site, as it is after its process was started."""
        found = DataSite(self.kit, data or self.data, self.folder / state, **{"engine": "loop", **options})
        if not found.has_bundle(self.sha256):
            found.put_bundle(self.bundle)
        return found

    def after(self, outcome):
        """Go on from what a round gave, as a server would."""
        total = uploaded(outcome)
        self.start_state = self.method.aggregate(total, self.start_state, self.layouts)


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path, **HEAD) as made:
        yield made


class Device:
    """What a device does in a round, without the network."""

    def __init__(self, place, index):
        self.place, self.index = place, index
        state = place.folder / f"device-{index}"
        self.client = EdgeClient.open(place.path, state, trusted_key=place.kit.trusted_key)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.client.close()

    def part(self, name):
        path = self.place.data / f"a-{self.index}" / f"{name}.npz"
        return None if not path.exists() else (np.load(path)["x"], np.load(path)["y"])

    def train(self, order):
        """What it uploads, and its metrics."""
        place, start, client = self.place, self.place.start_state, self.client
        client.receive(start.theta[place.shared], start.prototypes, order.round, order.influence)
        report = client.fit_round(*self.part("train"), order.epochs, [order.seed, 0, order.round, self.index])
        metrics = {"train_loss": report.loss, "train_accuracy": report.accuracy}
        for metric, name in (("validation", "validation"), ("personalisation", "test")):
            if self.part(name):
                found = client.evaluate(*self.part(name))
                metrics |= {metric: found.accuracy, f"{metric}_f1": found.macro_f1}
        update, theta = client.update(), start.theta.copy()
        theta[place.shared] = update.theta
        return methods.Trained(theta, update.prototypes, update.samples), metrics

    def evaluate(self, order):
        start = self.place.start_state
        words = (start.theta[self.place.shared], start.prototypes, order.influence)
        found = self.client.evaluate_shared(*words, *self.part("test"))
        return {"global": found.accuracy, "global_f1": found.macro_f1}


@pytest.mark.parametrize(
    ("engine", "bundle"),
    [pytest.param("loop", HEAD, marks=pytest.mark.slow), ("loop", KEEP), ("onnx", HEAD)],
    ids=["loop", "keep", "onnx"],
)
def test_rounds_are_those_of_devices(tmp_path, engine, bundle):
    """Two rounds: the second goes on from personal parts, in another process, and is of what the first one gave."""
    with ExitStack() as stack:
        place = stack.enter_context(Place(tmp_path, **bundle))
        devices = [stack.enter_context(Device(place, index)) for index in range(DEVICES)]
        compare(place, devices, engine)


def test_data_of_a_function_are_those_of_files(place):
    """The same round, number by number, whether a folder or a function has the samples."""
    program = f"""
import numpy as np


def read(path):
    found = np.load(path)
    return found["x"], found["y"]


def load(root={str(place.data)!r}):
    parts = lambda k: ("train", "validation", "test") if k == 0 else ("train", "test")
    return {{f"a-{{k}}": {{part: read(f"{{root}}/a-{{k}}/{{part}}.npz") for part in parts(k)}} for k in range({DEVICES})}}
"""
    (place.folder / "mine.py").write_text(program)
    order = place.order(1)
    files = place.hold().round(order)
    given = place.hold("given", data=f"{place.folder}/mine.py:load").round(order)
    assert states(given) == states(files)
    one, other = uploaded(given), uploaded(files)
    for name, total in one.sums.items():
        np.testing.assert_array_equal(total.total, other.sums[name].total)
    with pytest.raises(SettingsError, match="--set is for files"):
        place.hold("set", data=f"{place.folder}/mine.py:load", settings={"separator": ";"})


def compare(place, devices, engine):
    worst = 0.0
    for round_ in (1, 2):
        site = place.hold(engine=engine, workers=2)
        order = place.order(round_, epochs=2, encoding=3)
        outcome, expected = site.round(order), methods.Upload()
        assert list(states(outcome).values()) == ["done"] * DEVICES
        for report, device in zip(outcome.devices, devices, strict=True):
            trained, metrics = device.train(order)
            expected += place.method.upload(trained, place.start_state, place.layouts)
            assert report.samples == trained.samples
            assert report.metrics.keys() == metrics.keys()
            for name, value in metrics.items():
                assert report.metrics[name] == pytest.approx(value, abs=1e-4 if "loss" in name else 0.04)
            assert (report.sent, report.received) == (0, 0)
        for name in ("theta", "prototypes"):
            found, wanted = uploaded(outcome).sums[name], expected.sums[name]
            assert found.weight == wanted.weight
            difference = np.abs(found.mean() - wanted.mean())
            worst = max(worst, difference[place.certain if name == "theta" else slice(None)].max())
        assert worst < 1e-4
        judge = place.order(round_, EVALUATE, epochs=0)
        judged = site.round(judge)
        for report, device in zip(judged.devices, devices, strict=True):
            assert dict(report.metrics) == pytest.approx(device.evaluate(judge), abs=0.04)
            assert report.samples == 30
        place.after(outcome)


def train(site, place, round_=1, **changes):
    """A training of two epochs: its sums as bytes, and its outcome."""
    outcome = site.round(place.order(round_, **{"epochs": 2, **changes}))
    return outcome.upload, outcome


def reasons(outcome):
    return {report.device: (report.state, report.reason) for report in outcome.devices}


def test_a_round_asked_for_again_has_the_same_bits_also_of_a_process_that_was_killed(place):
    site = place.hold()
    first, second = train(site, place, 1)[0], train(site, place, 2)[0]
    assert first != second
    outcomes = place.folder / "state" / "outcomes"
    shutil.rmtree(outcomes)  # killed before it could keep the outcome: it is done again
    assert train(place.hold(), place, 2)[0] == second
    site = place.hold()
    assert train(site, place, 2)[0] == second  # recalled
    judged = site.round(place.order(2, EVALUATE))
    assert judged == place.hold().round(place.order(2, EVALUATE))
    third = train(place.hold(), place, 3)[0]
    (table,) = place.folder.glob("state/clients/*/00000003.safetensors")
    other = place.hold("other")
    assert [train(other, place, k)[0] for k in (1, 2, 3)] == [first, second, third]
    (again,) = place.folder.glob("other/clients/*/00000003.safetensors")
    assert table.read_bytes() == again.read_bytes()


def test_a_site_that_missed_rounds_goes_on_from_what_its_clients_have(place):
    straight, missing = place.hold(), place.hold("missing")
    train(straight, place, 1)
    train(missing, place, 1)
    assert train(straight, place, 4)[0] == train(missing, place, 4)[0]
    fresh = train(place.hold("fresh"), place, 4)[0]
    assert train(straight, place, 4)[0] != fresh
    # Another run of the same bundle: personal parts stay, as on devices.
    assert train(straight, place, 4, run="second")[0] != fresh
    # The server was put back further than records reach.
    with capture_logs() as logs:
        back = place.hold("missing")
        train(back, place, 5)
        assert train(back, place, 2)[0] == train(place.hold("unused"), place, 2)[0]
    assert any("begin anew" in line["event"] for line in logs)


def test_clients_that_cannot_take_part_are_reported_as_devices_are(place):
    x, y = toy_data(40, 0)
    x[3] = np.nan
    place.write(1, "train", x, y)
    site = place.hold()
    shutil.rmtree(place.data / "a-2")
    with capture_logs() as logs:
        _, outcome = train(site, place)
    assert reasons(outcome) == {
        "a-0": ("done", ""),
        "a-1": ("declined", "this device's data do not fit the model, or cannot be read"),
        "a-2": ("offline", "there are no data of it at its site"),
    }
    assert uploaded(outcome).sums["theta"].weight == 60
    (why,) = [line["why"] for line in logs if line["event"] == "not counted"]
    assert why.startswith(
        f"{place.data}/a-1/train.npz: x holds 72 values that are NaN or infinite, first in row 3;"
    )
    assert {d.device: (d.online, d.doing) for d in site.status().devices} == {
        "a-0": (True, "waiting"),
        "a-1": (True, "waiting"),
        "a-2": (False, "waiting"),
    }
    (place.data / "a-0" / "test.npz").unlink()
    place.write(1, "train", *toy_data(40, 0))
    judged = site.round(place.order(1, EVALUATE))
    assert reasons(judged)["a-0"] == (
        "declined",
        "there are no test data here to evaluate the server's model on",
    )
    assert states(judged)[1] == "done"
    assert states(train(site, place, 2, devices=[1])[1]) == {1: "done"}
    assert states(train(site, place, 3, seconds=0.0)[1]) == {0: "late", 1: "late", 2: "offline"}
    (place.data / "a-1" / "test.npz").unlink()
    only = {report.device: sorted(report.metrics) for report in train(site, place, 4)[1].devices}
    assert only["a-0"] == ["train_accuracy", "train_loss", "validation", "validation_f1"]
    assert only["a-1"] == ["train_accuracy", "train_loss"]
    assert set(states(site.round(place.order(4, EVALUATE))).values()) == {"declined", "offline"}


def test_updates_that_moved_too_far_or_diverged_do_not_count(place):
    site = place.hold()
    moved = train(site, place)[1]
    assert set(states(moved).values()) == {"done"}
    total, refused = train(site, place, 2, largest_step=1e-3)
    assert total == b""
    for report in refused.devices:
        assert report.state == "refused"
        assert "from the round's, and at most" in report.reason
        assert not report.metrics
    huge = (np.float32(1e25) * place.start_state.theta).tobytes()
    total, diverged = train(site, place, 3, theta=huge)
    assert total == b""
    assert set(reasons(diverged).values()) == {("declined", "training diverged on this device")}
    # What clients keep of a round that was refused is of that round, as on devices; of one that diverged, of the one before.
    again = train(site, place, 4)
    assert set(states(again[1]).values()) == {"done"}
    other = place.hold("other")
    train(other, place, 1)
    train(other, place, 2)
    assert train(other, place, 4)[0] == again[0]


def test_a_revoked_client_is_refused(place):
    site = place.hold()
    revoke("a-1", place.kits)
    signed = json.loads(place.operator.revoked.read_text())
    text, signature = signed["list"].encode(), base64.b64decode(signed["signature"])
    with pytest.raises(KitError):
        site.revoke(text, bytes(64))
    assert site.revoke(text, signature) == json.loads(text)["number"]
    for each in (site, place.hold()):
        assert reasons(train(each, place)[1])["a-1"] == ("refused", "its certificate is revoked")
        assert [device.revoked for device in each.status().devices] == [False, True, False]


def test_bundles_that_cannot_be_trained_here_are_refused_in_one_line(place):
    site = place.hold()
    path = place.folder / "other.fedali"

    def made(key=place.signer, mode="full", **fields):
        write_bundle(path, small_bundles.fields(mode, **fields), small_bundles.parts(mode), key)
        return path.read_bytes()

    for data, line in (
        (made(key=None), "it is not signed"),
        (made(mode="head"), "a site that holds data trains bundles of mode full"),
        (made(), "layouts are not those of its model"),
        (made(model=replace(place.manifest.model, name="unknown")), "cannot build the bundle's model"),
        (b"garbage", "not"),
    ):
        with pytest.raises(BundleError, match=line):
            site.put_bundle(data)
        assert not site.has_bundle(hashlib.sha256(data).digest())
    assert site.has_bundle(place.sha256)
    for changes, line in (
        ({"theta": b"1234"}, "theta has 4 bytes; the bundle's model has"),
        ({"bundle": bytes(32)}, "does not hold the round's bundle"),
        ({"devices": [7]}, "device 7, which this site has not"),
        ({"kind": 5}, "the order's kind is 5"),
        ({"run": "../up"}, "run"),
    ):
        with pytest.raises(FedaliError, match=line):
            train(site, place, **changes)


def test_a_folder_of_data_that_is_none_is_refused_in_one_line(place):
    def opened(data):
        return DataSite(place.kit, data, place.folder / "s", engine="loop")

    with pytest.raises(DataError, match=r"there is no such folder; it has to hold .*nowhere/a-0/train\.npz"):
        opened(place.folder / "nowhere")
    (place.folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"no device of this site; it has no folder; it has to be like"):
        opened(place.folder / "empty")
    (place.folder / "empty" / "a_0").mkdir()
    with pytest.raises(DataError, match=r"it has 'a_0' \(did you mean 'a-0'\?\)"):
        opened(place.folder / "empty")
    (place.folder / "empty" / "a-1").mkdir()
    with pytest.raises(DataError, match=r"a-1 has no train\.npz: save it with numpy\.savez"):
        opened(place.folder / "empty")
    (place.folder / "empty" / "a-1" / "train.npz").touch()
    with pytest.raises(DataError, match=r"a-1/train\.npz is broken and cannot be read"):
        opened(place.folder / "empty")
    (place.data / "a-9").mkdir()
    with capture_logs() as logs:
        opened(place.data)
    (line,) = logs
    assert line["names"].startswith("'a-9' (did you mean 'a-")


def test_words_that_go_with_data_alone_are_refused_without(place):
    for words in ({"engine": "onnx"}, {"workers": 2}, {"stride": 4}):
        with pytest.raises(SettingsError, match=f"--{next(iter(words))} goes with --data"):
            start(place.kit.folder, **words)
    with pytest.raises(SettingsError, match="unknown engine 'fast'"):
        start(place.kit.folder, data=place.data, engine="fast")
