"""``simulate`` with data, models and methods that are objects of this program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch import nn

import fedali
from fedali.errors import FedaliError, SettingsError
from fedali.methods import FedAvg, FedProx, Method
from fedali.models import Model, build_model
from fedali.support.names import file_name
from fedali_simulations import resume
from fedali_simulations.federate.exporting import export
from fedali_simulations.objects.lines import lines_of
from tests.marks import compiling

DIGITS = fedali.load_digits_dataset()
X, Y = DIGITS.x[:160], DIGITS.y[:160]
WHOSE = np.array([f"<b>{k % 3}" for k in range(160)])
SMALL = {"rounds": 2, "epochs": 1, "engine": "loop", "batch_size": 32}
TINY = {"name": "cnn2d", "options": {"channels": [4, 4]}}


@dataclass(frozen=True)
class Reachable(Method):
    """FedAvg by another name; a worker can import it."""

    name: ClassVar[str] = "mine"
    weight: float = 1.0

    def objective(self, step):
        return self.weight * step.loss()


def local_method():
    @dataclass(frozen=True)
    class Halved(Method):
        weight: float = 0.5

        def objective(self, step):
            return self.weight * step.loss()

    return Halved


class Words(Model):
    """Embeds ids of tokens."""

    def __init__(self, vocabulary=30, classes=3):
        super().__init__()
        self.table, self.mix, self.head = (
            nn.Embedding(vocabulary, 8),
            nn.Linear(8, 8),
            nn.Linear(8, classes),
        )

    def features(self, x, alignment):
        return nn.functional.gelu(self.mix(self.table(x).mean(1)))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of arrays, a model and methods that are objects, and what was said meanwhile."""
    folder = tmp_path_factory.mktemp("objects") / "run"
    model = build_model("cnn2d", (1, 8, 8), 10, channels=[4, 4], seed=3)
    methods = ["fedavg", local_method()(), FedProx(mu=0.0)]
    with capture_logs() as said:
        results = fedali.simulate(data=(X, Y, WHOSE), model=model, methods=methods, out=folder, **SMALL)
    return results, said, model


def test_arrays_a_model_and_methods_that_are_objects(found):
    results, said, _ = found
    assert list(dict.fromkeys(results.table["method"])) == ["fedavg", "Halved", "fedprox"]
    assert set(results.clients["client"]) == set(WHOSE)
    rows = results.clients.set_index(["method", "round", "client"])["train_loss"]
    np.testing.assert_allclose(rows["Halved"].to_numpy(), 0.5 * rows["fedavg"].to_numpy(), rtol=0.2)
    np.testing.assert_array_equal(rows["fedprox"].to_numpy(), rows["fedavg"].to_numpy())
    here = [line["note"] for line in said if "objects of this process" in line.get("note", "")]
    assert [note.partition(":")[0] for note in here] == ["data, model, method Halved"]


def test_results_are_shown_as_text_and_as_html_that_is_text(found):
    results, *_ = found
    assert "personalisation" in str(results)
    assert "Halved" in str(results)
    page = results._repr_html_()
    assert "Halved" in page
    named = fedali.simulate  # by its lazy name, and the one of the package
    assert named.__module__ == "fedali_simulations.study"


def test_the_models_of_the_clients_say_what_the_table_says(found):
    results, *_ = found
    models, federation = results.models("fedavg"), results.federation()
    last = results.clients[(results.clients["method"] == "fedavg") & (results.clients["round"] == 2)]
    accuracy = last.set_index("client")["personalisation"]
    for client, normalise in zip(federation.clients, federation.normalisation, strict=True):
        with torch.no_grad():
            logits = models[client.name](torch.from_numpy(normalise(client.x_test))).logits
        right = float((logits.argmax(1).numpy() == client.y_test).mean())
        assert right == pytest.approx(accuracy[client.name])
    with pytest.raises(SettingsError, match="no method 'fedav' in these results; did you mean 'fedavg'"):
        results.models("fedav")


def test_a_run_with_objects_goes_on_where_they_are_given_again(tmp_path, found):
    _, _, model = found
    given = {"data": (X, Y, WHOSE), "model": model, "methods": [local_method()]}
    whole = fedali.simulate(**given, out=tmp_path / "whole", **SMALL)
    part = fedali.simulate(**given, out=tmp_path / "part", **{**SMALL, "rounds": 1})
    seed = part.folder / file_name("Halved") / "seed-0"
    (seed / "done.json").unlink()
    settings = part.folder / "scenario.toml"
    settings.write_text(settings.read_text().replace("rounds = 1\n", "rounds = 2\n"))
    del part
    with pytest.raises(FedaliError, match="is an object of the Python process that began this run"):
        resume(settings.parent)
    other = (X[::-1].copy(), Y, WHOSE)
    with pytest.raises(FedaliError, match="is an object of the Python process"):
        resume(settings.parent, **{**given, "data": other})
    again = resume(settings.parent, **given)
    assert again.clients.equals(whole.clients)


def test_methods_are_lines_of_the_table():
    keep = []
    lines = lines_of([Reachable, Reachable(weight=0.1), FedAvg(answer="shared"), local_method()], keep)
    named = f"{__name__}:Reachable"
    assert lines == [
        {"name": named, "label": "mine"},
        {"name": named, "label": "mine weight=0.1", "options": {"weight": 0.1}},
        {"name": "fedavg+shared"},
        {"name": "python:Halved", "label": "Halved"},
    ]
    assert len(keep) == 1


@pytest.mark.slow
def test_classes_that_can_be_imported_are_trained_by_worker_processes(tmp_path):
    with capture_logs() as said:
        results = fedali.simulate(
            "digits",
            methods=[Reachable, Reachable(weight=0.1)],
            model=TINY,
            partition={"clients": 3},
            out=tmp_path / "run",
            workers=2,
            **{**SMALL, "rounds": 1},
        )
    assert not [line for line in said if "objects of this process" in line.get("note", "")]
    assert list(dict.fromkeys(results.table["method"])) == ["mine", "mine weight=0.1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "what is to be simulated? Give a scenario, as 'digits', or data=..."),
        ({"data": (X, Y)}, "these data are one client's: say whose samples are"),
        ({"data": (X, Y, WHOSE), "epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"data": (X, Y, WHOSE), "methods": [5]}, "method 5 is int; give a name"),
        (
            {"data": (X, Y, WHOSE), "model": 5},
            "model 5 is int; give a name, a fedali.Model, or what fedali.adapt",
        ),
        (
            {"data": (X, Y, WHOSE), "model": Words(classes=3)},
            "model Words has 3 outputs, and the data have 10",
        ),
        ({"data": (X, Y, WHOSE), "overrides": ["seeds=2"]}, "overrides are of a scenario"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, given, message):
    with pytest.raises(FedaliError) as caught:
        fedali.simulate(out=tmp_path / "run", **{**SMALL, **given})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _texts():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    return rng.integers(0, 10, size=(120, 5)) + 10 * y[:, None], y, np.arange(120) % 2


def _read(texts, engine, folder):
    torch.manual_seed(0)
    settings = {"rounds": 2, "epochs": 3, "batch_size": 16, "learning_rate": 0.02, "engine": engine}
    results = fedali.simulate(data=texts, model=Words(), methods="fedavg", out=folder, **settings)
    theta = [p.detach().numpy().ravel() for p in results.models("fedavg")["0"].parameters()]
    return results, np.concatenate(theta)


def test_ids_of_tokens_are_learnt_and_not_normalised(tmp_path):
    results, _ = _read(_texts(), "loop", tmp_path / "run")
    assert results.table.set_index("measure")["accuracy"]["personalisation"] > 0.8
    large = _texts()[0] + 5, *_texts()[1:]
    with pytest.raises(SettingsError, match="samples are ids of tokens, and bundles are for measurements"):
        export(results.folder, tmp_path / "words.fedali")
    with pytest.raises(SettingsError, match="Words embeds tokens 0 to 29, and the data have 34"):
        _read(large, "loop", tmp_path / "large")
    with pytest.raises(SettingsError, match="samples are ids of tokens: give a model that takes them"):
        fedali.simulate(data=_texts(), out=tmp_path / "no", **SMALL)
    image_model = build_model("cnn2d", (1, 8, 8), 3)
    with pytest.raises(SettingsError, match="model CNN2D has no"):
        fedali.simulate(data=_texts(), model=image_model, out=tmp_path / "cnn", **SMALL)


def test_any_network_and_numbers_to_learn(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    y, whose = x @ np.array([1.0, -2.0, 0.5, 0.0]), np.arange(90) % 3
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    settings = {**SMALL, "rounds": 3, "epochs": 10, "learning_rate": 0.01, "task": "regression"}
    results = fedali.simulate(
        data=(x, y, whose), model=net, methods="fedavg", out=tmp_path / "run", **settings
    )
    assert results.clients["personalisation"].iloc[-1] < 0.5
    words = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(40, 3))
    texts = fedali.simulate(data=_texts(), model=words, methods="fedavg", out=tmp_path / "words", **SMALL)
    assert len(texts.clients)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param("compiled", marks=compiling), "onnx"])
def test_ids_of_tokens_by_every_engine(tmp_path, engine):
    _, expected = _read(_texts(), "loop", tmp_path / "loop")
    _, found = _read(_texts(), engine, tmp_path / engine)
    np.testing.assert_allclose(found, expected, atol=2e-3)
