"""Bundles whose body is int8: what is quantised, how close it is, and when it is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from fedali.errors import DataError
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.int8 import Int8, _faster
from tests.integration.export.sources import number, session, source


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
