"""Bundles for ``make bench-edge``: of fresh models, each graph checked against torch when it is exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.edge_workloads import BATCH, BATCHES, CLASSES, DECAY, LEARNING_RATE, SHAPE, EdgeWorkload
from fedali.answers import slots_of
from fedali.bundle.file import Bundle
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.data.normalisation import channel_shape
from fedali.methods import build_method
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import Adam
from fedali.slots import initial_vector
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start

CREATED = "2030-01-01T00:00:00+00:00"
_ROUND = 2  # of the federation: prototypes pull from the second on


def fresh_source(
    model: str, prototypes: tuple[int, ...], method: str = "fedali-paper", shape: tuple[int, ...] = SHAPE
) -> Source:
    """A model of the registry that was not trained, as ``export_bundle`` takes it."""
    chosen = build_method(method)
    alp = ALPSettings(num_prototypes=prototypes, decay=DECAY) if chosen.uses_prototypes else None
    made = build_model(model, shape, len(CLASSES), alp=alp, seed=0)
    slots = (*chosen.slots, *slots_of(chosen.answer))
    theta = initial_vector(made.facts, slots, made.theta().numpy())
    local = np.random.default_rng(0).standard_normal(made.prototype_layout.size).astype(np.float32)
    nothing = np.zeros(channel_shape(shape), np.float32)
    return Source(
        name=model,
        model=made,
        component=Component(model, {}, None if alp is None else dataclasses.asdict(alp)),
        method=chosen,
        optimizer=Adam(LEARNING_RATE),
        start=Start(theta, local, theta, local),
        round=_ROUND,
        decay=DECAY,
        normalisation=BundleNormalisation("none", nothing, nothing + 1),
        input_shape=shape,
        classes=CLASSES,
    )


def write_workload(workload: EdgeWorkload, folder: Path) -> dict[str, Any]:
    """Write ``NAME.fedali`` and ``NAME.npz`` to ``folder``; facts about them."""
    subject = fresh_source(workload.model, workload.prototypes)
    path = folder / f"{workload.name}.fedali"
    bundle = export_bundle(path, subject, mode=workload.mode, batch=BATCH, created=CREATED)
    random = np.random.default_rng(1)
    y = random.integers(0, len(CLASSES), BATCH * BATCHES)
    centres = random.standard_normal((len(CLASSES), *SHAPE), np.float32)
    x = random.standard_normal((len(y), *SHAPE), np.float32) + centres[y]
    np.savez(folder / f"{workload.name}.npz", x=x, y=y)
    return {
        "description": workload.description,
        "mode": workload.mode,
        "parameters": subject.model.parameter_layout.size,
        "trained": bundle.manifest.layouts.trained.size,
        "prototypes": list(workload.prototypes),
        "bundle_bytes": path.stat().st_size,
        "graphs": describe_graphs(bundle),
    }


def describe_graphs(bundle: Bundle) -> dict[str, dict[str, int]]:
    """Nodes and bytes of each graph of a bundle."""
    found = {}
    for name, part in bundle.parts.items():
        if name.endswith(".onnx"):
            nodes = onnx.load_from_string(part).graph.node
            found[name.removesuffix(".onnx")] = {"nodes": len(nodes), "bytes": len(part)}
    return found
