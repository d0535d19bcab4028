"""How far every graph of every model, method and mode is from torch: the gate that every export passes.

``python -m benchmarks.edge_parity MODEL`` prints one model's. Methods whose graphs would be the same are exported once:
those that train the same objective, all with ALP layers or all without.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.edge_bundles import CREATED, describe_graphs, fresh_source
from benchmarks.edge_workloads import BATCH, REFERENCE, SHAPE, SMALL
from fedali.answers import BUNDLED
from fedali.methods import METHODS, PRESETS, Method, build_method
from fedali_server.export.bundle_export import export_bundle

MODELS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # shape of a sample, prototypes
    "mlp": ((60,), SMALL),
    "cnn1d": (SHAPE, SMALL),
    "cnn2d": ((1, 28, 28), SMALL),
    "hart": (SHAPE, REFERENCE),
}


def groups() -> list[tuple[str, ...]]:
    """Names of methods, those together whose graphs are the same."""
    found: dict[tuple[object, object, bool, str], list[str]] = {}
    for name in (*METHODS, *PRESETS):
        method = build_method(name)
        objective = type(method).objective
        settings = None if objective is Method.objective else method  # its own may depend on its options
        if method.answer in BUNDLED:
            key = objective, settings, method.uses_prototypes, method.answer
            found.setdefault(key, []).append(name)
    return [tuple(names) for names in found.values()]


def measure(model: str) -> list[dict[str, Any]]:
    """What the gate measured for ``model``: one row for each group of methods and mode."""
    shape, prototypes = MODELS[model]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for names in groups():
            for mode in ("full", "head"):
                source = fresh_source(model, prototypes, names[0], shape)
                path = Path(scratch) / "model.fedali"
                bundle = export_bundle(path, source, mode=mode, batch=BATCH, created=CREATED)  # type: ignore[arg-type]
                rows.append(
                    {
                        "model": model,
                        "methods": names,
                        "mode": mode,
                        "graphs": describe_graphs(bundle),
                        "bundle_bytes": path.stat().st_size,
                        "parity": {name: vars(found) for name, found in bundle.manifest.parity.items()},
                    }
                )
    return rows


if __name__ == "__main__":
    print(json.dumps({"rows": measure(sys.argv[1])}))
