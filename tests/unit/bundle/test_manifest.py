"""Manifests, and states and graphs that are not what they say: signed by a trusted key, and refused."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from fedali.bundle.file import parse_bundle, read_bundle, write_bundle
from fedali.data import Columns, Reading
from fedali.data.facts import NO_FACTS, DataFacts
from tests import small_bundles as bundles
from tests.unit.bundle.altered import TRUSTED, altered, refused


def test_a_manifest_that_is_too_large_or_no_json(good):
    for text, words in (
        (b" " * (1 << 20) + b"{}", "manifest is larger"),
        (b"", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": 1, "format": 1}', "a key is given twice"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"format": 3}', "a newer fedali may read it"),
        (b'{"format": true}', "format cannot be True"),
    ):
        refused(altered(good["full"], lambda _, text=text: text), words)


@pytest.mark.parametrize("name", sorted(bundles.fields().keys() | {"format", "fedali", "parts"}))
def test_every_key_has_to_be_there_and_of_its_kind(good, name):
    refused(altered(good["full"], lambda m: m.__delitem__(name)), f"has no '{name}'|parts")
    for wrong in ([[[]]], 3.5, "", -1, True, {"more": 1}, "two\nlines", "\x1b[2J"):
        if name in ("int8", "keeps_local_prototypes") and wrong in (True, {"more": 1}):
            continue
        refused(altered(good["full"], lambda m, wrong=wrong: m.update({name: wrong})), ".")


def _set(*path):
    *path, last, value = path

    def change(manifest):
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("hidden", 1), "unknown key 'hidden'"),
        (_set("model", "hidden", 1), "model has an unknown key 'hidden'"),
        (_set("method", "alp", None), "method has an unknown key 'alp'"),
        (_set("created", "yesterday"), "created cannot be 'yesterday'"),
        (_set("created", "2026-01-02T03:04:05"), "created cannot be"),
        (_set("mode", "both"), "mode cannot be 'both'"),
        (_set("batch", 1 << 20), "batch cannot be"),
        (_set("input_shape", [0, 2]), "input_shape cannot be"),
        (_set("input_shape", [1] * 7), "input_shape cannot be"),
        (_set("input_shape", [6, 3]), r"mean cannot be|broadcast"),
        (_set("classes", ["walk"]), "classes cannot be"),
        (_set("classes", ["walk", "walk", "run"]), "classes cannot be"),
        (_set("classes", ["walk", "a\tb", "run"]), "classes cannot be"),
        (_set("classes", ["walk", "run"]), "logits is"),
        (_set("normalisation", "std", [1, 0]), "std cannot be"),
        (_set("normalisation", "std", [1, 1e60]), "std cannot be"),
        (_set("normalisation", "mean", [1, "a"]), "mean cannot be"),
        (_set("normalisation", "mean", [[1], [1, 2]]), "mean cannot be"),
        (_set("normalisation", "kind", "some"), "kind cannot be"),
        (_set("layouts", "trained", []), "trained is not what mode 'full' trains"),
        (_set("layouts", "parameters", [["a", [-1]]]), "parameters cannot be"),
        (_set("layouts", "parameters", [["a", [1 << 40]]]), "parameters cannot be"),
        (_set("layouts", "prototypes", [["alp.0", [3, 5]]]), r"local_prototypes is .*the manifest says"),
        (_set("personal", [[5, 4]]), "personal cannot be"),
        (_set("personal", [[0, 5], [4, 6]]), "personal cannot be"),
        (_set("personal", [[0, 79]]), "personal cannot be"),
        (_set("personal", [[0, 1.5]]), "personal cannot be"),
        (_set("optimizer", "name", "rprop"), "name cannot be 'rprop'"),
        (_set("optimizer", {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}), "second_moment is"),
        (_set("optimizer", "beta1", 2), "beta1 cannot be 2"),
        (_set("optimizer", "momentum", 0.9), "unknown key 'momentum'"),
        (_set("hyper", "influence", 1.5), "influence cannot be 1.5"),
        (_set("round", -1), "round cannot be -1"),
        (_set("opset", 99), "opset cannot be 99"),
        (_set("opset", 19), "of operator set 18, the manifest says 19"),
        (_set("onnxruntime", "1.19"), "onnxruntime cannot be"),
        (_set("parts", "train.onnx", "sha256", "0" * 63), "sha256 cannot be"),
        (_set("parts", "train.onnx", "sha256", "0" * 64), "train.onnx is not what the manifest says"),
        (_set("parts", "train.onnx", "bytes", 3), "train.onnx is not what the manifest says"),
        (_set("parts", "embed.onnx", {"sha256": "0" * 64, "bytes": 3}), "'embed.onnx', or should not"),
        (_set("parts", "../x", {"sha256": "0" * 64, "bytes": 3}), r"'\.\./x', or should not"),
        (_set("parity", "embed", {"error": 0.0, "what": "x"}), "parity has to say"),
        (_set("parity", "train", "error", -1), "error cannot be"),
        (_set("int8", {}), "int8 goes with"),
        (_set("data", []), "data cannot be"),
        (_set("data", {"colour": 1}), "data has an unknown key 'colour'"),
        (_set("data", {"channels": ["x"]}), "data: channels cannot be"),
        (_set("data", {"reading": {"gap": 0}}), "data: data.gap is 0.0"),
        (_set("data", {"reading": {"separator": ["a"]}}), "data.separator is .*has to be text"),
    ],
)  # fmt: skip
def test_manifests_that_make_no_sense(good, change, words):
    refused(altered(good["full"], change), words)


def test_what_is_known_of_data_is_optional_and_comes_back(good, tmp_path):
    plain = write_bundle(tmp_path / "plain", bundles.fields(), bundles.parts(), None)
    assert plain.manifest.data == NO_FACTS
    assert b'"data"' not in plain.manifest.to_json()
    facts = DataFacts(("x", "y"), 2, 0.02, (1,), Reading(columns=Columns(client="user"), missing=("-999",)))
    known = write_bundle(tmp_path / "known", bundles.fields(data=facts), bundles.parts(), None)
    assert known.manifest.data == facts
    assert read_bundle(tmp_path / "known", None, allow_unsigned=True).manifest.data == facts


def test_a_head_is_one_stretch_and_trained_alone(good):
    for layout in ([["body.weight", [5, 12]]], [["head.weight", [3, 5]]]):
        refused(altered(good["head"], _set("layouts", "trained", layout)), "trained is not what mode 'head'")
    apart = [["head.weight", [3, 5]], ["body.weight", [5, 12]], ["head.bias", [3]]]
    refused(altered(good["head"], _set("layouts", "parameters", apart)), "not one stretch")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff" * 8 + b"{}", "cannot be read"),
        (bundles.state()[:-1], "cannot be read"),
        (bundles.state(more=np.zeros(3, np.float32)), "holds .*more"),
        (save({"theta": np.zeros(78, np.float32)}), "state.safetensors holds shared_theta, theta, not"),
        (bundles.state(theta=np.zeros(77, np.float32)), r"theta is float32 \[77\], not float32 \[78\]"),
        (bundles.state(theta=np.zeros((78, 1), np.float32)), r"theta is float32 \[78, 1\]"),
        (bundles.state(theta=np.zeros(78, np.float64)), "theta is float64"),
        (bundles.state(shared_theta=np.full(78, np.nan, np.float32)), "shared_theta has values that are not finite"),
        (bundles.state(shared_prototypes=np.full(10, np.inf, np.float32)), "not finite"),
    ],
)  # fmt: skip
def test_states_that_do_not_fit(good, state, words):
    refused(altered(good["full"], lambda _: None, ("state.safetensors", state)), words)


def _renamed(model):
    model.graph.input[0].name = "Theta"


def _reshaped(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5


def _open_batch(model):
    for value in model.graph.input:
        if value.name == "x":
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_renamed, r"train\.onnx has the inputs Theta,"),
        (_reshaped, r"train\.onnx: theta is .*5.*the manifest says"),
        (_open_batch, r"train\.onnx: x is .*None"),
        (lambda model: model.graph.output.pop(), r"train\.onnx has the outputs"),
        (lambda model: model.graph.node.add(op_type="Evil", domain="evil"), r"train\.onnx is refused"),
    ],
)  # fmt: skip
def test_graphs_are_what_the_manifest_says(good, change, words):
    graph = bundles.changed(bundles.graphs()["train.onnx"], change)
    refused(altered(good["full"], lambda _: None, ("train.onnx", graph)), words)


def test_inference_may_leave_the_batch_open(good):
    def change(model):
        for value in (model.graph.input[2], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"

    graph = bundles.changed(bundles.graphs()["infer.onnx"], change)
    data = altered(good["full"], lambda _: None, ("infer.onnx", graph))
    assert parse_bundle(data, TRUSTED).parts["infer.onnx"] == graph
