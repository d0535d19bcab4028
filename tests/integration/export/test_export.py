"""Bundles of models: what devices compute is what torch computes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper

from fedali.bundle.file import read_bundle
from fedali.bundle.keys import create, load_private
from fedali.bundle.manifest import Component
from fedali.errors import BundleError, SettingsError
from fedali.methods import FedAvg, options_of
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.draws import Draw, Subject
from fedali_server.export.int8 import Int8
from fedali_server.export.parity import ALLOWED, check_parity
from tests.integration.export.sources import ALP, CREATED, SMALL, number, session, source
from tests.marks import slow

METHODS = ("fedali-paper", "fedali-head", "fedavg", "fedper", "local")


def transposes_of_nothing(graph):
    """Nodes that onnxruntime 1.19 takes for real transposes when a Gemm follows."""
    orders = [
        list(a.ints)
        for n in onnx.load_from_string(graph).graph.node
        if n.op_type == "Transpose"
        for a in n.attribute
    ]
    return [order for order in orders if order == sorted(order)]


def rebuilt(manifest, state):
    """An ordinary torch model of what the bundle's own manifest and state say."""
    alp = manifest.model.alp
    alp = None if alp is None else ALPSettings(**{**alp, "num_prototypes": tuple(alp["num_prototypes"])})
    model = build_model(
        manifest.model.name, manifest.input_shape, len(manifest.classes), alp=alp, **manifest.model.options
    )
    parameters = manifest.layouts.parameters.unflatten(torch.from_numpy(state["theta"]))
    prototypes = manifest.layouts.prototypes
    local, global_ = (
        list(prototypes.unflatten(torch.from_numpy(state[f"{k}_prototypes"])).values()) for k in ("local", "shared")
    )  # fmt: skip
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(parameters[name])
        for i, layer in enumerate(model.alp_layers):
            layer.local_prototypes.copy_(local[i])
            layer.global_prototypes.copy_(global_[i])
            layer.influence, layer.decay = manifest.hyper.influence, manifest.hyper.decay
            layer.inference_matcher = "cosine"
    return model


@pytest.mark.parametrize("mode", ["full", "head"])
@pytest.mark.parametrize("name", slow(SMALL, lambda name: name in ("hart", "cnn2d")))
def test_a_bundle_alone_trains_and_predicts_as_an_ordinary_torch_model(tmp_path, name, mode):
    """Everything the torch side needs comes out of the file: manifest and state."""
    export_bundle(tmp_path / "model", source(name, optimizer=SGD(0.05, 0.9)), mode=mode, batch=8)
    bundle = read_bundle(tmp_path / "model", None, allow_unsigned=True)
    assert not [p for p in bundle.parts if p.endswith(".onnx") and transposes_of_nothing(bundle.parts[p])]
    manifest, state = bundle.manifest, bundle.state()
    model = rebuilt(manifest, state)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, *manifest.input_shape)).astype(np.float32)
    y = rng.integers(0, 3, 8)

    constants = {
        "theta": state["theta"],
        "local_prototypes": state["local_prototypes"],
        "influence": number(manifest.hyper.influence),
    }
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(x))
    infer = session(bundle, "infer")
    for size in (1, 3, 8):
        found = infer(x=x[:size], **constants)["logits"]
        np.testing.assert_allclose(found, expected.logits[:size], atol=1e-5, rtol=1e-4)
    samples = x
    if mode == "head":
        samples = session(bundle, "embed")(x=x, **constants)["embedding"]
        np.testing.assert_allclose(samples, expected.embedding, atol=1e-5, rtol=1e-4)
        logits = model.head(torch.from_numpy(samples))
        names = [n for n, _ in model.named_parameters() if n.startswith("head.")]
    else:
        logits = model.train()(torch.from_numpy(x)).logits
        names = [n for n, _ in model.named_parameters()]
    assert manifest.layouts.trained.names == tuple(names)
    F.cross_entropy(logits, torch.from_numpy(y)).backward()
    parameters = dict(model.named_parameters())
    gradient = torch.cat([parameters[n].grad.reshape(-1) for n in names]).numpy()

    trained = state["theta"][manifest.trained]
    stepped = session(bundle, "train")(
        theta=trained,
        first_moment=np.zeros_like(trained),
        second_moment=np.zeros(0, np.float32),
        local_prototypes=state["local_prototypes"],
        x=samples,
        y=y,
        weights=np.ones(8, np.float32),
        shared_theta=state["shared_theta"][manifest.trained],
        shared_prototypes=state["shared_prototypes"],
        step_size=number(manifest.optimizer["learning_rate"]),
        correction=number(1),
        influence=number(manifest.hyper.influence),
        decay=number(manifest.hyper.decay),
    )
    found = stepped["new_first_moment"]
    assert np.linalg.norm(found - gradient) <= 1e-5 * np.linalg.norm(gradient)
    np.testing.assert_allclose(stepped["new_theta"], trained - 0.05 * gradient, atol=1e-6)
    if mode == "full":
        moved = torch.cat([layer.local_prototypes.reshape(-1) for layer in model.alp_layers]).numpy()
        assert not np.array_equal(moved, state["local_prototypes"])
        np.testing.assert_allclose(stepped["new_local_prototypes"], moved, atol=1e-6)
        adapted = session(bundle, "adapt")(
            x=x,
            weights=np.ones(8, np.float32),
            shared_prototypes=state["shared_prototypes"],
            decay=number(manifest.hyper.decay),
            **constants,
        )
        np.testing.assert_allclose(adapted["new_local_prototypes"], moved, atol=1e-6)


@pytest.mark.parametrize("mode", ["full", "head"])
@pytest.mark.parametrize("method", slow(METHODS, lambda method: method not in ("fedali-paper", "local")))
def test_every_method_is_exported(tmp_path, method, mode):
    made = source("cnn1d", method)
    bundle = export_bundle(tmp_path / "model", made, mode=mode, batch=8)
    manifest, layout = bundle.manifest, made.model.parameter_layout
    head = layout.size - made.model.head_layout.size
    personal = {"fedper": (head, layout.size), "fedali-head": (head, layout.size), "local": (0, layout.size)}
    assert manifest.personal == ((personal[method],) if method in personal else ())
    assert manifest.method == Component(made.method.name, options_of(made.method))
    assert (manifest.model.alp is None) == (not made.method.uses_prototypes)
    assert manifest.hyper.influence == (
        0.2 if method in ("fedali-paper", "fedali-head", "fedali-kmeans") else 0.0
    )
    assert manifest.trained == slice(head if mode == "head" else 0, layout.size)
    assert ("adapt.onnx" in bundle.parts) == (mode == "full" and made.method.uses_prototypes)
    assert ("embed.onnx" in bundle.parts) == (mode == "head")
    assert set(manifest.parity) == {part.removesuffix(".onnx") for part in bundle.parts if "onnx" in part}
    assert all(0 < parity.error <= ALLOWED for parity in manifest.parity.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"matcher": "cosine", "update": "single"},
        {"matcher": "euclidean", "update": "single", "duplicates": "last", "gated": False},
        {"matcher": "euclidean", "topk_from": "tokens"},
    ],
)
def test_every_setting_of_the_alp_layers_is_exported(tmp_path, options):
    alp = dataclasses.replace(ALP, **options)
    bundle = export_bundle(tmp_path / "model", source("hart", alp=alp), batch=8)
    assert all(parity.error <= ALLOWED for parity in bundle.manifest.parity.values())


def test_the_same_model_is_the_same_bytes(tmp_path, monkeypatch):
    create(tmp_path / "site")
    key = load_private(tmp_path / "site.key")
    for name in ("a", "b"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))  # made anew, not kept
        export_bundle(tmp_path / name, source("cnn1d"), mode="head", batch=8, key=key, created=CREATED)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Forgetful(FedAvg):
    """Its objective is no function of its arguments alone: what is captured is not what it says later."""

    name: ClassVar[str] = "forgetful"
    calls: ClassVar[list[int]] = []

    def objective(self, step):
        self.calls.append(1)
        return super().objective(step) * (1 + 1e-3 * len(self.calls))


def test_an_objective_that_is_no_pure_function_is_found_and_nothing_is_written(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"the last one")
    with pytest.raises(BundleError, match=r"train\.onnx computes something else than torch: .* No bundle"):
        export_bundle(path, source("mlp", Forgetful()), batch=8)
    assert path.read_bytes() == b"the last one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def _subject(made, mode="full"):
    theta = torch.from_numpy(np.array(made.start.theta, np.float32))
    return Subject(made.model, made.method, made.optimizer, theta, made.input_shape, 3, mode, 8)


def _scaled(graph, factor):
    """A graph one of whose constants is a little off, like one that a careless optimiser made."""
    model = onnx.load_from_string(graph)
    constants = [t for t in model.graph.initializer if t.data_type == 1]
    for tensor in constants:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name)
        )
    assert constants
    return model.SerializeToString()


def test_the_gate_refuses_graphs_that_compute_something_else(tmp_path):
    made = source("cnn1d")
    full = export_bundle(tmp_path / "full", made, batch=8)
    head = export_bundle(tmp_path / "head", made, batch=8, mode="head")
    graphs = {name.removesuffix(".onnx"): data for name, data in full.parts.items() if name.endswith(".onnx")}
    check_parity(_subject(made), graphs)
    for name in graphs:
        with pytest.raises(BundleError, match=rf"{name}\.onnx computes something else"):
            check_parity(_subject(made), {name: _scaled(graphs[name], 1.001)})
    for name in ("train", "embed"):
        with pytest.raises(BundleError, match=rf"{name}\.onnx computes something else"):
            check_parity(_subject(made, "head"), {name: _scaled(head.parts[f"{name}.onnx"], 1.001)})
    other = dataclasses.replace(made, optimizer=Adam(2e-3, beta2=0.99))
    with pytest.raises(BundleError, match=r"train\.onnx .* the second moment"):
        check_parity(_subject(other), {"train": graphs["train"]})
    other = source("cnn1d", alp=dataclasses.replace(ALP, scale=3.001))
    with pytest.raises(BundleError, match=r"infer\.onnx .* the logits"):
        check_parity(_subject(other), {"infer": graphs["infer"]})
    other = source("cnn1d", alp=dataclasses.replace(ALP, topk_from="tokens", update="single"))
    with pytest.raises(BundleError, match=r"adapt\.onnx .* the movement of prototypes"):
        check_parity(_subject(other), {"adapt": graphs["adapt"]})


@pytest.mark.parametrize("matcher", ["ot", "cosine", "euclidean"])
@pytest.mark.parametrize("update", ["bulk", "single"])
def test_near_ties_are_seen(matcher, update):
    made = source("cnn1d", alp=dataclasses.replace(ALP, matcher=matcher, update=update))
    subject = _subject(made)
    for name, training in (("local", False), ("global_", True)):
        draw = Draw(subject, 0, 8)
        assert draw.gaps(subject, training=training).min() > 0
        rows = getattr(draw, name).reshape(4, -1)
        rows[1:] = rows[0]  # every choice is a tie
        assert draw.gaps(subject, training=training).min() == 0
        assert torch.isinf(draw.gaps(subject, training=True)[-2:]).all()  # padding chooses nothing


def test_settings_that_make_no_sense(tmp_path):
    for words, options in (
        ("batch is 0", {"batch": 0}),
        ("int8 goes with mode 'head'", {"int8": Int8(*[None] * 3)}),
    ):
        with pytest.raises(SettingsError, match=words):
            export_bundle(tmp_path / "model", source("mlp"), **options)
    assert not list(tmp_path.iterdir())
