"""Numbers and several labels on a device: it trains, predicts and evaluates as the torch model and scikit-learn do."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from fedali.answers import slots_of
from fedali.bundle.file import read_bundle
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.errors import DataError, SettingsError
from fedali.methods import build_method
from fedali.models import build_model
from fedali.optimizers.rules import Adam
from fedali.slots import initial_vector
from fedali.targets import Targets, fit_numbers
from fedali.tasks import build_task
from fedali_client import EdgeClient
from fedali_client.cli import main
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start

NAMES = ("weight", "height")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 5)).astype(np.float32)
MEASURED = np.stack([70 + 5 * X[:, 0] - 3 * X[:, 1], 1700 + 90 * X[:, 2]], 1).astype(np.float32)
LABELS = (X[:, :2] > 0).astype(np.float32)


def write(path, task, targets, method="fedavg"):
    """A bundle of an untrained model."""
    model = build_model("mlp", (5,), 2, seed=1, hidden=(16,))
    chosen = build_method(method).for_task(task)
    slots = (*chosen.slots, *slots_of(chosen.answer))
    theta, nothing = initial_vector(model.facts, slots, model.theta().numpy()), np.zeros(0, np.float32)
    given = Source(
        name="small",
        model=model,
        component=Component("mlp", {"hidden": [16]}, None),
        method=chosen,
        optimizer=Adam(1e-2),
        start=Start(theta, nothing, theta, nothing),
        round=0,
        decay=0.9,
        normalisation=BundleNormalisation("none", np.zeros((), np.float32), np.ones((), np.float32)),
        input_shape=(5,),
        classes=NAMES,
        task=task,
        targets=targets,
    )
    export_bundle(path, given, batch=16)
    return model


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    path = tmp_path_factory.mktemp("regression") / "model.fedali"
    task = build_task("regression", {"error": "huber", "units": ["kg", "mm"]})
    return path, write(path, task, fit_numbers(NAMES, MEASURED, ("kg", "mm")))


def test_numbers_are_learnt_and_told_in_units(regression, tmp_path):
    path, model = regression
    with EdgeClient.open(path, tmp_path / "state", allow_unsigned=True) as client:
        targets = client.manifest.targets
        with torch.no_grad():
            expected = targets.in_units(model(torch.from_numpy(X)).logits.numpy())
        np.testing.assert_allclose(client.predict_proba(X), expected, rtol=1e-4)
        before = client.evaluate(X, MEASURED)
        report = client.fit(X, MEASURED, epochs=30)
        after = client.evaluate(X, MEASURED)
        said = client.predict_proba(X)
        assert client.predict(X[:1]) == [dict(zip(NAMES, map(float, said[0]), strict=True))]
        for place, name in enumerate(NAMES):
            pair = MEASURED[:, place], said[:, place]
            assert after.scores[f"mae_{name}"] == pytest.approx(sk.mean_absolute_error(*pair), rel=1e-3)
            assert after.scores[f"r2_{name}"] == pytest.approx(sk.r2_score(*pair), rel=1e-3)
        assert after.scores["nrmse"] < 0.5 < before.scores["nrmse"]
        assert report.accuracy < 0.5  # the error while training, in standard deviations
        with pytest.raises(SettingsError, match="balanced over classes"):
            client.observe(X[0])
        with pytest.raises(DataError, match=r"60 samples need numbers \[60, 2\]: weight, height"):
            client.fit(X, MEASURED[:, 0])
        with pytest.raises(DataError, match=r"y\[0\] has nan for 'weight'"):
            client.fit(X, MEASURED * np.nan)


def test_the_commands_tell_numbers(regression, tmp_path, capsys):
    path, _ = regression
    np.savez(tmp_path / "mine.npz", x=X, y=MEASURED, target_names=NAMES)
    np.savez(tmp_path / "more.npz", x=X[:2])
    np.savez(tmp_path / "other.npz", x=X, y=MEASURED, target_names=["weight", "age"])
    state = ["--state", str(tmp_path / "state"), "--allow-unsigned"]

    def call(command, *more, code=0):
        with pytest.raises(SystemExit) as ended:
            main([command, str(path), *state, *more])
        assert ended.value.code == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    assert "error" in json.loads(call("fit", "--data", str(tmp_path / "mine.npz"), "--epochs", "2", "--json"))
    told = call("evaluate", "--data", str(tmp_path / "mine.npz"))
    assert "mae weight" in told
    assert " kg" in told
    first = json.loads(call("predict", "--data", str(tmp_path / "more.npz")).splitlines()[0])
    assert first["units"] == {"weight": "kg", "height": "mm"}
    assert set(first["values"]) == set(NAMES)
    assert "weight (kg)" in call("info")
    refused = call("fit", "--data", str(tmp_path / "other.npz"), code=2)
    assert "has the targets weight, age, and the model learns weight, height" in refused


def test_a_bundle_says_what_it_learns_and_one_of_classes_says_nothing(regression):
    manifest = read_bundle(regression[0], None, allow_unsigned=True).manifest
    plain = json.loads(manifest.to_json())
    assert plain["task"]["name"] == "regression"
    assert plain["task"]["units"] == ["kg", "mm"]
    np.testing.assert_allclose(plain["task"]["mean"], MEASURED.mean(0), rtol=1e-6)
    assert json.loads(manifest.to_json()) == plain
    usual = Source(*[None] * 11)  # a source of classification, whatever else
    assert usual.bundled_task is None


@pytest.mark.slow
def test_several_labels_are_learnt(tmp_path):
    path = tmp_path / "model.fedali"
    model = write(path, build_task("multi-label"), Targets(NAMES, "labels"), "fedali")
    with EdgeClient.open(path, tmp_path / "state", allow_unsigned=True) as client:
        with torch.no_grad():
            expected = torch.sigmoid(model(torch.from_numpy(X)).logits).numpy()
        np.testing.assert_allclose(client.predict_proba(X), expected, atol=1e-5)
        client.fit(X, LABELS, epochs=30)
        after, said = client.evaluate(X, LABELS), client.predict_proba(X) > 0.5
        assert after.scores["micro_f1"] == pytest.approx(sk.f1_score(LABELS, said, average="micro"))
        assert after.accuracy > 0.9
        assert client.predict(X[:1]) == [[name for name, there in zip(NAMES, said[0], strict=True) if there]]
        with pytest.raises(DataError, match="where 0 or 1 has to be"):
            client.evaluate(X, LABELS + 0.5)
