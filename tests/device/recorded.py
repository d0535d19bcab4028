"""``tests.bundles`` for machines without torch: a bundle that ``tests.device.prepare`` wrote elsewhere.

``pytest -p tests.device.recorded`` puts this module in the place of the other before any test asks for it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

CASES, COPY, FACTS = "cases", "small.fedali", "small.json"

_folder = os.environ.get("FEDALI_DEVICE_CASES")
if _folder:
    _facts = json.loads((Path(_folder) / FACTS).read_text())
    SHAPE, CLASSES = tuple(_facts["shape"]), tuple(_facts["classes"])
    sys.modules["tests.bundles"] = sys.modules[__name__]


def write_full(path: Path) -> None:
    """The bundle that was prepared."""
    assert _folder
    shutil.copyfile(Path(_folder) / COPY, path)


def toy_data(count: int = 45, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Windows whose class shows in their level, as ``tests.bundles`` makes them."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    x = random.standard_normal((count, *SHAPE)) + 1.5 * (y[:, None, None] - 1)
    return x.astype(np.float32), y.astype(np.int64)


def pytest_report_header() -> str:
    """What this machine is, and what is installed: the point of running here."""
    packages = ("onnxruntime", "numpy", "protobuf", "cryptography", "safetensors")
    installed = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"device: {platform.machine()}, Python {platform.python_version()}, {installed}"
