"""Small bundles of the mode full for tests of the edge client, exported here from the captured step itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fedali.answers import PROTOTYPES, slots_of
from fedali.bundle.file import Bundle, write_bundle
from fedali.bundle.manifest import ALPNumbers, BundleLayouts, BundleNormalisation, Component, Parity
from fedali.capture.captures import capture_embed, capture_gated, capture_predict, capture_step
from fedali.capture.decompositions_onnx import ONNX
from fedali.capture.onnx_export import export_graph
from fedali.methods import build_method, personal_indices
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.slots import layout_of

SHAPE, CLASSES, BATCH = (24, 3), ("rest", "walk", "run"), 8
ALP = ALPSettings(num_prototypes=(4,), decay=0.9)


def small_model(alp: ALPSettings | None = ALP, channels: tuple[int, ...] = (4, 8)) -> Model:
    return build_model("cnn1d", SHAPE, len(CLASSES), alp=alp, seed=0, channels=channels, kernel=3, hidden=5)


@cache
def _exported(alp: ALPSettings | None, method: str, optimizer: Adam | SGD) -> dict[str, bytes]:
    model, chosen = small_model(alp), build_method(method)
    seen = {"matcher": "cosine", "input_shape": SHAPE, "batch": BATCH, "table": ONNX}
    graphs = {"train": capture_step(model, chosen, optimizer, input_shape=SHAPE, batch=BATCH, table=ONNX)}
    if chosen.answer == "gate":
        graphs["infer"] = capture_gated(model, prototypes=PROTOTYPES, **seen)
        graphs["embed"] = capture_embed(model, **seen)
    else:
        graphs["infer"] = capture_predict(model, **seen)
    return {f"{name}.onnx": export_graph(graph) for name, graph in graphs.items()}


def write_full(
    path: Path,
    *,
    alp: ALPSettings | None = ALP,
    method: str = "fedali-paper",
    optimizer: Adam | SGD | None = None,
    key=None,
    normalisation: str = "global",
    personal: bool = False,
    options: dict | None = None,
    infer: bytes | None = None,
) -> Bundle:
    """A bundle of mode full; the state is drawn from a fixed seed. ``infer`` replaces the graph of that name."""
    model = small_model(alp)
    optimizer = optimizer or Adam()
    chosen = build_method(method, {"personal": "head"} if personal and method == "fedali-paper" else None)
    random = np.random.default_rng(0)
    parameters, prototypes = model.parameter_layout, model.prototype_layout
    theta = model.theta().numpy()
    shared = random.standard_normal(prototypes.size).astype(np.float32)
    state = {
        "theta": theta,
        "local_prototypes": shared
        + np.float32(0.1) * random.standard_normal(prototypes.size).astype(np.float32),
        "shared_theta": theta + np.float32(0.01),
        "shared_prototypes": shared,
    }
    slots = slots_of(chosen.answer)
    whole = layout_of(model.facts, slots) if slots else parameters
    for name in ("theta", "shared_theta"):
        gate = np.abs(np.random.default_rng(1).standard_normal(whole.size - parameters.size))
        state[name] = np.concatenate([state[name], gate.astype(np.float32)])
    graphs = _exported(alp, method, optimizer)
    parts = {**graphs, **({"infer.onnx": infer} if infer else {}), "state.safetensors": save(state)}
    kind = {"none": ([0.0] * 3, [1.0] * 3)}.get(normalisation, ([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]))
    fields = {
        "name": "small",
        "created": "2030-01-01T00:00:00+00:00",
        "model": Component(
            "cnn1d", {"channels": [4, 8], "kernel": 3, "hidden": 5}, {"num_prototypes": [4]} if alp else None
        ),
        "method": Component(chosen.name, options or {}),
        "mode": "full",
        "batch": BATCH,
        "input_shape": SHAPE,
        "classes": CLASSES,
        "normalisation": BundleNormalisation(normalisation, *(np.array(v, np.float32) for v in kind)),
        "layouts": BundleLayouts(whole, prototypes, parameters),
        "answers_by": chosen.answer,
        "personal": _ranges(personal_indices(chosen, parameters)),
        "optimizer": {"name": type(optimizer).__name__.lower(), **vars(optimizer)},
        "hyper": ALPNumbers(0.2, 0.9),
        "keeps_local_prototypes": (options or {}).get("local_prototypes") == "keep",
        "prototypes": build_method(method, options).prototypes,
        "answer": (0, parameters.size),
        "phases": (),
        "round": 3,
        "opset": 18,
        "onnxruntime": ">=1.19",
        "parity": {name.removesuffix(".onnx"): Parity(0.0, "not measured") for name in graphs},
        "int8": None,
    }
    return write_bundle(path, fields, parts, key)


def toy_data(count: int = 45, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Windows [n, 24, 3] whose class shows in their level."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.standard_normal((count, *SHAPE)) + 1.5 * (y[:, None, None] - 1)
    return x.astype(np.float32), y.astype(np.int64)


def _ranges(indices: np.ndarray) -> tuple[tuple[int, int], ...]:
    pieces = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1) if len(indices) else []
    return tuple((int(piece[0]), int(piece[-1]) + 1) for piece in pieces)
