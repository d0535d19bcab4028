"""Models as a run would leave them, and what their bundles compute."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime

from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.methods import build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import Adam
from fedali_server.export.source import Source, Start

CREATED = "2026-01-02T03:04:05+00:00"
CLASSES = ("walk", "sit", "run")
ALP = ALPSettings(num_prototypes=(4,), decay=0.9, scale=3.0)
SMALL = {
    "mlp": ((12,), {"hidden": [8, 6]}),
    "cnn1d": ((33, 6), {"channels": [8, 16], "hidden": 5}),
    "cnn2d": ((2, 9, 8), {"kernel": 3, "channels": [4, 8], "embedding": 6}),
    "hart": ((32, 6), {"dim": 32, "kernels": [3], "hidden": 16}),
}


def source(model, method="fedali-paper", optimizer=None, alp=ALP, **changes):
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
        normalisation=BundleNormalisation("none", np.zeros((), np.float32), np.ones((), np.float32)),
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


def number(value):
    return np.array(value, np.float32)
