"""The examples as a user runs them: in processes of their own, from outside the repository, with small inputs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = (
    "rounds=1, epochs=1, engine='loop', out='run', model={'name': 'MODEL', 'options': {'channels': [4, 4]}}"
)

pytestmark = pytest.mark.slow


def run(folder, program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_csv(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["client,label,x,y"]
    for client in ("ada", "bob"):
        for label in ("rest", "walk"):
            scale = 0.1 if label == "rest" else 1.0
            lines += [f"{client},{label},{x:.4f},{y:.4f}" for x, y in rng.normal(0, scale, (400, 2))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    out = run(
        tmp_path,
        f"import own_csv; print(own_csv.main('mine.csv', {SMALL.replace('MODEL', 'cnn1d')}))",
    )
    assert "personalisation" in out
    assert (tmp_path / "run" / "table.csv").exists()


def test_own_data_by_a_function_in_worker_processes(tmp_path):
    out = run(tmp_path, f"import own_data; print(own_data.main({SMALL.replace('MODEL', 'cnn2d')}))")
    assert "objects of this process" not in out
    assert "own_data.py:load" in (tmp_path / "run" / "scenario.toml").read_text()
    again = "from fedali_simulations import resume; print(resume('run').clients['client'].nunique())"
    assert run(tmp_path, again).split()[-1] == "8"


def test_own_method(tmp_path):
    small = SMALL.replace("MODEL", "cnn2d").replace("rounds=1", "rounds=1, seeds=1")
    assert "Pulled strength=1.0" in run(tmp_path, f"import own_method; print(own_method.main({small}))")


def test_the_notebook(tmp_path):
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    if importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel"):
        import nbclient
        import nbformat

        read = nbformat.from_dict(notebook)
        nbclient.NotebookClient(read, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    out = run(tmp_path, "\n\n".join(cells))
    assert "data, method Smooth: objects of this process" in out
    assert out.count("person ") >= 6
