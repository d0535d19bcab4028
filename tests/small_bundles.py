"""Small bundles for tests of what reads them: graphs with the right inputs and outputs that compute next to nothing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save

from fedali.bundle.manifest import ALPNumbers, BundleLayouts, BundleNormalisation, Component, Parity
from fedali.layout import Layout
from fedali.methods import build_method

BATCH, SHAPE, CLASSES, EMBEDDING = 4, (6, 2), ("walk", "sit", "run"), 5
PARAMETERS = Layout.of({"body.weight": (5, 12), "head.weight": (3, 5), "head.bias": (3,)})
HEAD = Layout.of({"head.weight": (3, 5), "head.bias": (3,)})
PROTOTYPES = Layout.of({"alp.0": (2, 5)})


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(inputs, outputs, nodes=None, initializers=()):
    """Every output a sum of nothing and an input's shape; or the nodes given."""
    made = list(nodes or ())
    if nodes is None:
        for output in outputs:
            shape = [d.dim_value or 1 for d in output.type.tensor_type.shape.dim]
            zeros = helper.make_tensor(f"c_{output.name}", 1, shape, [0.0] * int(np.prod(shape)))
            made.append(helper.make_node("Constant", [], [output.name], value=zeros))
    graph = helper.make_graph(made, "main", inputs, outputs, initializer=list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def graphs(mode="full"):
    P, L, T = PARAMETERS.size, PROTOTYPES.size, (PARAMETERS if mode == "full" else HEAD).size
    x = (BATCH, *SHAPE) if mode == "full" else (BATCH, EMBEDDING)
    numbers = [value(name, ()) for name in ("step_size", "correction", "influence", "decay")]
    state = [("theta", T), ("first_moment", T), ("second_moment", T), ("local_prototypes", L)]
    found = {
        "train.onnx": model(
            [value(n, (s,)) for n, s in state]
            + [value("x", x), value("y", (BATCH,), TensorProto.INT64), value("weights", (BATCH,))]
            + [value("shared_theta", (T,)), value("shared_prototypes", (L,)), *numbers],
            [value(f"new_{n}", (s,)) for n, s in state]
            + [value(n, ()) for n in ("loss", "correct", "weight")],
        )
    }
    seen = [value("theta", (P,)), value("local_prototypes", (L,)), value("x", (1, *SHAPE))]
    seen.append(value("influence", ()))
    found["infer.onnx"] = model(seen, [value("logits", (1, len(CLASSES)))])
    if mode == "head":
        found["embed.onnx"] = model(seen, [value("embedding", (1, EMBEDDING))])
    return {name: graph.SerializeToString() for name, graph in found.items()}


def state(seed=0, **changes):
    rng = np.random.default_rng(seed)
    sizes = {"theta": PARAMETERS, "local_prototypes": PROTOTYPES}
    sizes |= {"shared_theta": PARAMETERS, "shared_prototypes": PROTOTYPES}
    tensors = {name: rng.standard_normal(layout.size).astype(np.float32) for name, layout in sizes.items()}
    return save({**tensors, **changes})


def fields(mode="full", **changes):
    """Arguments of ``write_bundle``: the manifest's fields."""
    names = ("train", "infer") if mode == "full" else ("train", "infer", "embed")
    found = {
        "name": "a small one",
        "created": "2026-01-02T03:04:05+00:00",
        "model": Component("mlp", {"hidden": [5]}, {"num_prototypes": [2]}),
        "method": Component("fedali-paper", {"personal": "head"}),
        "mode": mode,
        "batch": BATCH,
        "input_shape": SHAPE,
        "classes": CLASSES,
        "normalisation": BundleNormalisation("global", np.zeros(2, np.float32), np.ones(2, np.float32)),
        "layouts": BundleLayouts(PARAMETERS, PROTOTYPES, PARAMETERS if mode == "full" else HEAD),
        "personal": ((60, 78),),
        "optimizer": {"name": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "hyper": ALPNumbers(0.2, 0.999),
        "keeps_local_prototypes": False,
        "answer": (0, PARAMETERS.size),
        "phases": (),
        "round": 7,
        "opset": 18,
        "onnxruntime": ">=1.19",
        "parity": {name: Parity(0.0, "nothing was computed") for name in names},
        "int8": None,
    }
    found |= changes
    made = build_method(found["method"].name, found["method"].options)
    return {"prototypes": made.prototypes, **found}


def parts(mode="full", **changes):
    """Arguments of ``write_bundle``: the files."""
    return {**graphs(mode), "state.safetensors": state(), **changes}


def changed(data: bytes, change) -> bytes:
    """An ONNX file with ``change`` applied to its model."""
    found = onnx.load_from_string(data)
    change(found)
    return found.SerializeToString()
