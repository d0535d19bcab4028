"""A doctor outlives what kills others: an onnxruntime or a provider that crashes this machine's processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

IMPORT_KILLS = {
    "onnxruntime/__init__.py": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
}  # as 1.21.0 on a Raspberry Pi 4
PROVIDER_KILLS = {
    "sitecustomize.py": """import os, signal
import onnxruntime
real = onnxruntime.InferenceSession
def session(model, options=None, providers=None, **rest):
    if providers[0] == "BrokenExecutionProvider":
        os.kill(os.getpid(), signal.SIGSEGV)
    if providers[0] == "AbsentExecutionProvider":
        providers = providers[1:]
    return real(model, options, providers=providers, **rest)
onnxruntime.InferenceSession = session
onnxruntime.get_available_providers = lambda: [
    "BrokenExecutionProvider", "AbsentExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
"""
}


@pytest.fixture
def examined(tmp_path, bundle_path):
    """What ``doctor`` ends with on a machine with those modules before its own."""

    def run(files, *words):
        for name, text in files.items():
            (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "site" / name).write_text(text)
        command = ["doctor", bundle_path, "--allow-unsigned", "--state", tmp_path / "state", *words]
        return subprocess.run(
            [sys.executable, "-m", "fedali_client", *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
        )

    return run


def test_an_onnxruntime_that_kills_whoever_imports_it_is_named(examined):
    done = examined(IMPORT_KILLS, "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 1
    assert (
        "onnxruntime cannot be used, its import dies of signal 4 (illegal instruction)"
        in facts["warnings"][0]
    )
    assert facts["machine"]["onnxruntime"][0].isdigit()
    assert facts["choose"] is None
    assert done.stderr.count("\n") == 1
    assert "install another version of onnxruntime" in done.stderr


def test_a_provider_that_crashes_is_a_line_of_the_answer(examined):
    done = examined(PROVIDER_KILLS, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["providers"]["BrokenExecutionProvider"] == "dies of signal 11 (segmentation fault)"
    assert facts["providers"]["AbsentExecutionProvider"].startswith("does not start here")
    assert facts["providers"]["AzureExecutionProvider"].startswith("not tried")
    assert facts["providers"]["CPUExecutionProvider"] > 0
    assert facts["choose"].startswith("--threads")


def test_its_lines_are_for_people(examined):
    done = examined(PROVIDER_KILLS)
    lines = done.stdout.splitlines()
    assert "BrokenExecutionProvider  dies of signal 11 (segmentation fault)" in lines
    assert lines[-1].startswith("choose: --threads ")


def test_a_machine_without_onnxruntime_is_told_what_to_install(examined):
    missing = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
    done = examined({"onnxruntime/__init__.py": missing})
    assert done.returncode == 1
    assert "pip install 'fedali[client]'" in done.stderr
