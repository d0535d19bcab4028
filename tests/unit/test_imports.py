from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "flwr", "scipy", "sklearn", "pandas", "ot", "matplotlib")


@pytest.mark.parametrize(
    "module",
    [
        "fedali",
        "fedali.data",
        "fedali.aggregation",
        "fedali.metrics",
        "fedali.layout",
        "fedali.wire.messages",
    ],
)
def test_importing_it_loads_nothing_heavy(module):
    program = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_contracts_hold():
    lint = Path(sys.executable).parent / "lint-imports"
    root = Path(__file__).parents[2]
    done = subprocess.run([lint, "--no-cache"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
