"""What a run ran on: versions and machine."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedali.support.cores import cores as cores
from fedali.version import __version__
from fedali_server.quiet import log_to_stderr as log_to_stderr
from fedali_server.quiet import quiet_flower as quiet_flower

_PACKAGES = ("numpy", "torch", "flwr", "pot", "scipy", "scikit-learn", "safetensors", "pandas")


def environment() -> dict[str, Any]:
    """Versions and machine, enough to redo a run."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "fedali": __version__,
        "packages": versions,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
