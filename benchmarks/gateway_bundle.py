"""A bundle of a model with about a million parameters, for ``make bench-gateway``; a process of its own, since it loads torch."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np

from benchmarks.edge_workloads import CLASSES, DECAY, SHAPE
from fedali.bundle.keys import load_private
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.methods import build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import Adam
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start

HIDDEN, PROTOTYPES = (1000, 256), 64

if __name__ == "__main__":
    path, key = sys.argv[1:]
    alp = ALPSettings(num_prototypes=(PROTOTYPES,), decay=DECAY)
    model = build_model("mlp", SHAPE, len(CLASSES), alp=alp, seed=0, hidden=HIDDEN)
    theta = model.theta().numpy()
    prototypes = np.random.default_rng(0).standard_normal(model.prototype_layout.size).astype(np.float32)
    nothing = np.zeros(SHAPE[-1], np.float32)
    source = Source(
        name="a million parameters",
        model=model,
        component=Component("mlp", {"hidden": list(HIDDEN)}, dataclasses.asdict(alp)),
        method=build_method("fedali-paper"),
        optimizer=Adam(),
        start=Start(theta, prototypes, theta, prototypes),
        round=1,
        decay=DECAY,
        normalisation=BundleNormalisation("none", nothing, nothing + 1),
        input_shape=SHAPE,
        classes=CLASSES,
    )
    export_bundle(path, source, key=load_private(key))
    print(f'{{"parameters": {theta.size}, "prototypes": {prototypes.size}}}')
