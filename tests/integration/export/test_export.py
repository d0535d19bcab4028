"""Bundles of models and runs: what devices compute is what torch computes, and what a run recorded."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper
from safetensors.numpy import load_file

from fedali.bundle.file import read_bundle
from fedali.bundle.keys import create, load_private
from fedali.bundle.manifest import Component, Normalisation
from fedali.errors import BundleError, CheckpointError, DataError, SettingsError
from fedali.methods import FedAvg, build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.draws import Draw, Subject
from fedali_server.export.int8 import Int8, _faster
from fedali_server.export.parity import ALLOWED, check_parity
from fedali_server.export.source import Source, Start
from fedali_simulations.federate.exporting import choose, export
from fedali_simulations.study import simulate
from tests.marks import slow

CREATED = "2026-01-02T03:04:05+00:00"
CLASSES = ("walk", "sit", "run")
ALP = ALPSettings(num_prototypes=(4,), decay=0.9, scale=3.0)
SMALL = {
    "mlp": ((12,), {"hidden": [8, 6]}),
    "cnn1d": ((33, 6), {"channels": [8, 16], "hidden": 5}),
    "cnn2d": ((2, 9, 8), {"kernel": 3, "channels": [4, 8], "embedding": 6}),
    "hart": ((32, 6), {"dim": 32, "kernels": [3], "hidden": 16}),
}
METHODS = ("fedali", "fedali-head", "fedavg", "fedper", "local")


def source(model, method="fedali", optimizer=None, alp=ALP, **changes):
    """A model with random parameters and prototypes, as a run would leave them."""
    method = method if not isinstance(method, str) else build_method(method)
    shape, options = SMALL[model]
    alp = alp if method.uses_prototypes else None
    made = build_model(model, shape, len(CLASSES), alp=alp, seed=1, **options)
    rng = np.random.default_rng(2)
    sizes = {"theta": made.parameter_layout.size, "local_prototypes": made.prototype_layout.size}
    theta, local = (rng.standard_normal(size).astype(np.float32) for size in sizes.values())
    theta = made.theta().numpy() + 0.01 * theta
    start = Start(theta, local, theta + np.float32(0.01), local[::-1].copy())
    found = Source(
        name=f"{model} {method.name}",
        model=made,
        component=Component(model, options, None if alp is None else dataclasses.asdict(alp)),
        method=method,
        optimizer=optimizer or Adam(2e-3),
        start=start,
        round=3,
        decay=0.9,
        normalisation=Normalisation("none", np.zeros((), np.float32), np.ones((), np.float32)),
        input_shape=shape,
        classes=CLASSES,
    )
    return dataclasses.replace(found, **changes)


def session(bundle, name):
    made = onnxruntime.InferenceSession(bundle.parts[f"{name}.onnx"], providers=["CPUExecutionProvider"])
    names = [value.name for value in made.get_inputs()]

    def run(**feed):
        assert set(feed) == set(names)
        return dict(zip([v.name for v in made.get_outputs()], made.run(None, feed), strict=True))

    return run


def transposes_of_nothing(graph):
    """Nodes that onnxruntime 1.19 takes for real transposes when a Gemm follows."""
    orders = [
        list(a.ints)
        for n in onnx.load_from_string(graph).graph.node
        if n.op_type == "Transpose"
        for a in n.attribute
    ]
    return [order for order in orders if order == sorted(order)]


def number(value):
    return np.array(value, np.float32)


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
@pytest.mark.parametrize("method", slow(METHODS, lambda method: method not in ("fedali", "local")))
def test_every_method_is_exported(tmp_path, method, mode):
    made = source("cnn1d", method)
    bundle = export_bundle(tmp_path / "model", made, mode=mode, batch=8)
    manifest, layout = bundle.manifest, made.model.parameter_layout
    head = layout.size - made.model.head_layout.size
    personal = {"fedper": (head, layout.size), "fedali-head": (head, layout.size), "local": (0, layout.size)}
    assert manifest.personal == ((personal[method],) if method in personal else ())
    assert manifest.method == Component(made.method.name, dataclasses.asdict(made.method))
    assert (manifest.model.alp is None) == (not made.method.uses_prototypes)
    assert manifest.hyper.influence == (0.2 if method.startswith("fedali") else 0.0)
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

    def objective(self, output, batch, parameters, shared):
        self.calls.append(1)
        return super().objective(output, batch, parameters, shared) * (1 + 1e-3 * len(self.calls))


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


@pytest.mark.slow
def test_int8_has_the_body_as_constants_and_the_head_as_input(tmp_path):
    made = source("cnn1d")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, *made.input_shape)).astype(np.float32)
    y = rng.integers(0, 3, 200)
    int8 = Int8(x[:100], (x[100:160], y[100:160]), (x[160:], y[160:]))
    told: list[str] = []
    bundle = export_bundle(tmp_path / "model", made, mode="head", batch=8, int8=int8, report=told.append)
    assert "int8 " in told[-1]
    kept = "embed_int8.onnx" in bundle.parts
    assert (bundle.manifest.int8 is not None) == kept == ("int8 kept" in told[-1])

    floats = {name: bundle.parts[f"{name}.onnx"] for name in ("infer", "embed")}
    found = int8.quantise(made, floats)
    assert set(found.graphs) == {"infer_int8", "embed_int8"}
    sizes = [found.facts[name] for name in ("calibrated_with", "validated_with", "tested_with")]
    assert sizes == [100, 60, 40]
    wrong = dataclasses.replace(int8, test=(x[160:], y[160:] + 3)).quantise(made, floats)
    assert wrong.facts["test_accuracy"] == {"float": 0.0, "int8": 0.0}  # and it decides nothing
    assert wrong.facts["validation_accuracy"] == found.facts["validation_accuracy"]
    with pytest.raises(DataError, match="validation"):
        dataclasses.replace(int8, validation=(x[:0], y[:0])).quantise(made, floats)
    with_int8 = dataclasses.replace(
        bundle, parts={f"{k}.onnx": v for k, v in {**floats, **found.graphs}.items()}
    )
    state = bundle.state()
    feed = {"x": x[:64], "theta": state["theta"], "influence": number(0.2)}
    feed["local_prototypes"] = state["local_prototypes"]
    runs = {name: session(with_int8, name) for name in ("infer", "embed", "infer_int8", "embed_int8")}
    for name, output in (("infer", "logits"), ("embed", "embedding")):
        exact, close = runs[name](**feed)[output], runs[f"{name}_int8"](**feed)[output]
        error = np.linalg.norm(close - exact) / np.linalg.norm(exact)
        assert 0 < error < 0.1
        head = bundle.manifest.trained
        body_moved, head_moved = state["theta"].copy(), state["theta"].copy()
        body_moved[: head.start] *= 2
        head_moved[head] *= 2
        again = runs[f"{name}_int8"](**{**feed, "theta": body_moved})[output]
        np.testing.assert_array_equal(again, close)
        again = runs[f"{name}_int8"](**{**feed, "theta": head_moved})[output]
        assert np.array_equal(again, close) == (name == "embed")
    nodes = {node.op_type for node in onnx.load_from_string(found.graphs["embed_int8"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes


def test_int8_is_kept_only_where_it_is_faster():
    def measured(one, many):
        times = {"batch 1": {"float": 1.0, "int8": one}, "batch 32": {"float": 1.0, "int8": many}}
        return {"infer": {"milliseconds": times}, "embed": {"milliseconds": times}}

    assert _faster(measured(1.0, 0.9))
    assert not _faster(measured(1.0, 0.97))
    assert not _faster(measured(1.1, 0.5))


QUICK = [
    "methods=fedali-head,fedavg",
    "seeds=1",
    "partition.clients=4",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "evaluation.generalisation_every=1",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    return folder, simulate("digits", overrides=QUICK, rounds=2, out=folder, workers=1)


def test_a_clients_bundle_predicts_as_the_run_recorded(tmp_path, run):
    folder, results = run
    bundle = export(folder, tmp_path / "model", method="fedali-head", client="client-2", created=CREATED)
    manifest, state = bundle.manifest, bundle.state()
    rows = results.clients
    row = rows[
        (rows["method"] == "fedali-head") & (rows["client"] == "client-2") & (rows["round"] == manifest.round)
    ]
    plan = _plan(folder, "fedali-head")
    (client,) = (c for c in plan.federation.clients if c.name == "client-2")
    x = (client.x_test.astype(np.float32) - manifest.normalisation.mean) / manifest.normalisation.std
    found = session(bundle, "infer")(
        theta=state["theta"],
        local_prototypes=state["local_prototypes"],
        x=x,
        influence=number(manifest.hyper.influence),
    )["logits"].argmax(1)
    right = (found == client.y_test).mean()
    assert abs(right - row["personalisation"].item()) < 1.5 / len(x)  # a near-tie may fall to the other side
    best = load_file(folder / "fedali-head/seed-0/best.safetensors")
    np.testing.assert_array_equal(state["theta"], best["client-2/theta"])
    np.testing.assert_array_equal(state["local_prototypes"], best["client-2/local_prototypes"])
    np.testing.assert_array_equal(state["shared_theta"], best["shared.theta"])
    assert manifest.name == "digits fedali-head, client-2"
    assert manifest.classes == tuple("0123456789")
    assert manifest.optimizer["learning_rate"] == 3e-3
    assert manifest.hyper.decay == 0.999


def _plan(folder, method):
    from fedali_simulations.setup import build_plan

    chosen = choose(folder, method)
    return build_plan(chosen.scenario, chosen.line, chosen.seed)


def test_every_way_to_name_a_model_finds_it(run):
    folder, _ = run
    seed = folder / "fedavg" / "seed-0"
    wanted = choose(folder, "fedavg")
    assert wanted.file == seed / "best.safetensors"
    for way in (folder / "fedavg", seed, seed / "best.safetensors"):
        found = choose(way)
        assert (found.line.title, found.seed, found.file.name) == ("fedavg", 0, "best.safetensors")
    assert choose(seed / "checkpoint.safetensors").file == seed / "checkpoint.safetensors"


def test_models_that_are_not_there(tmp_path, run):
    folder, _ = run
    for error, words, way, options in (
        (SettingsError, "several: --method fedali-head, fedavg", folder, {}),
        (SettingsError, "no line 'fedavf'; did you mean 'fedavg'", folder, {"method": "fedavf"}),
        (SettingsError, "no seed 7; known: 0", folder, {"method": "fedavg", "seed": 7}),
        (SettingsError, "folder of 'fedavg', not of", folder / "fedavg", {"method": "fedali-head"}),
        (SettingsError, "folder of seed 0, not of 1", folder / "fedavg/seed-0", {"seed": 1}),
        (SettingsError, "--client NAME", folder / "fedavg/seed-0/personal/client-1.safetensors", {}),
        (CheckpointError, "no line 'nobody'", folder / "nobody", {}),
        (CheckpointError, "no seed of the folder 'seed-x'", folder / "fedavg/seed-x", {}),
        (CheckpointError, "holds no run", tmp_path, {}),
    ):
        with pytest.raises(error, match=words):
            choose(way, **options)
    with pytest.raises(SettingsError, match=r"no client 'client-9'; (did you mean|known)"):
        export(folder / "fedavg", tmp_path / "model", client="client-9")
    last = folder / "fedavg/seed-0/checkpoint.safetensors"
    with pytest.raises(SettingsError, match="no personal models of its round"):
        export(last, tmp_path / "model", client="client-1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["client", "none"])
def test_normalisation_is_told(tmp_path, kind):
    folder = tmp_path / "run"
    overrides = [*QUICK, "methods=fedavg", "model.name=mlp", "model.options={}", f"split.normalise={kind}"]
    simulate("digits", overrides=overrides, rounds=1, out=folder, workers=1)
    plan = _plan(folder, None)
    whole = export(folder, tmp_path / "whole", batch=4).manifest.normalisation
    own = export(folder, tmp_path / "own", batch=4, client="client-1").manifest.normalisation
    assert (whole.kind, own.kind) == (kind, kind)
    names = [client.name for client in plan.federation.clients]
    np.testing.assert_allclose(own.mean, plan.federation.normalisation[names.index("client-1")].mean)
    if kind == "client":
        samples = np.concatenate([plan.federation.clients[k].x_train for k in plan.seen]).astype(np.float64)
        np.testing.assert_allclose(whole.mean.ravel(), samples.mean(), rtol=1e-5)
        np.testing.assert_allclose(whole.std.ravel(), samples.std(), rtol=1e-5)
        assert not np.allclose(own.mean, whole.mean, rtol=1e-4)
    else:
        assert (whole.mean == 0).all()
        assert (whole.std == 1).all()
