from __future__ import annotations

import ast
import re
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


def test_the_table_of_flowers_inside_is_what_is_imported():
    root = Path(__file__).parents[2]
    public = {"app", "clientapp", "serverapp", "serverapp.strategy"}
    used = {}
    for path in [p for folder in ("fedali", "server", "simulations") for p in (root / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found = {name.removeprefix("flwr.") for name in names if name.startswith("flwr.")} - public
            if found:
                used.setdefault(path.name, set()).update(found)
    rows = re.findall(r"^\| `(\w+\.py)` \| (.*?) \|", (root / "docs/flower.md").read_text("utf-8"), re.M)
    assert {file: set(re.findall(r"`(.*?)`", modules)) for file, modules in rows} == used
