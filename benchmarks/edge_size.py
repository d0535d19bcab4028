"""What the extra ``client`` takes on a device: disk, packages, and what importing it costs.

On x86-64 it is installed into an environment of its own. For aarch64 the wheels that pip would install there are
fetched, and the files in them counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT

_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
_NOT_OURS = {"pip", "setuptools", "wheel"}
_IMPORT = """
import json, sys, time
began = time.perf_counter()
import {what}
seconds = time.perf_counter() - began
lines = open("/proc/self/status").read().splitlines()
print(json.dumps([seconds, *(1024 * int(l.split()[1]) for l in lines if l.startswith("VmRSS"))]))
"""


def installed(scratch: Path) -> dict[str, Any]:
    """The extra, installed on this machine: bytes of files, of which compiled Python, and packages."""
    wheel = _wheel(scratch)
    folder = scratch / "x86"
    _run(sys.executable, "-m", "venv", folder)
    _run(folder / "bin" / "python", "-m", "pip", *_PIP, "-c", "constraints.txt", f"{wheel}[client]")
    listed = _run(folder / "bin" / "python", "-m", "pip", "list", "--format", "json")
    packages = {p["name"]: p["version"] for p in json.loads(listed) if p["name"] not in _NOT_OURS}
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(_run(folder / "bin" / "python", "-c", code).strip())
    files = [p for p in site.rglob("*") if p.is_file() and not _pips(p.relative_to(site))]
    compiled = sum(p.stat().st_size for p in files if p.suffix == ".pyc")
    return {
        "bytes": sum(p.stat().st_size for p in files),
        "compiled_bytes": compiled,
        "largest": _largest(site, files),
        "packages": packages,
    }


def wheels(scratch: Path, platforms: Sequence[str] = _PLATFORMS) -> dict[str, Any]:
    """The wheels of the extra for another platform: bytes of files in them, and packages."""
    folder = scratch / "wheels"
    requirements = _run(sys.executable, "-m", "tests.device.requirements").split("\n")
    arguments = [word for platform in platforms for word in ("--platform", platform)]
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--implementation", "cp", *arguments, "-c", "constraints.txt"),
        *("-d", folder, *filter(None, requirements)),
    )
    _wheel(folder)
    sizes = {}
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as file:
            sizes[path.name.split("-")[0]] = sum(entry.file_size for entry in file.infolist())
    return {"bytes": sum(sizes.values()), "packages": sizes}


def imports(python: Path, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Seconds and resident bytes of imports, each in a fresh process; all kinds once before the first again."""
    kinds = {
        "fedali_client": "fedali_client",
        "fedali_client and onnxruntime": "fedali_client, onnxruntime",
        "torch": "torch",
    }
    found: dict[str, dict[str, list[float]]] = {kind: {"seconds": [], "rss": []} for kind in kinds}
    for repetition in range(repetitions + 1):
        for kind, what in kinds.items():
            seconds, rss = json.loads(_run(python, "-c", _IMPORT.format(what=what)))
            if repetition:  # the first fills the disk's cache
                found[kind]["seconds"].append(seconds)
                found[kind]["rss"].append(rss)
    return found


def median(values: Sequence[float]) -> float:
    """The middle."""
    return statistics.median(values)


_PIP = ("install", "--quiet", "--disable-pip-version-check")


def _wheel(folder: Path) -> Path:
    """This package's own wheel, in ``folder``."""
    _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        folder,
        ".",
    )
    return next(folder.glob("fedali-*.whl"))


def _pips(path: Path) -> bool:
    return (
        path.parts[0].split("-")[0] in {*_NOT_OURS, "pkg_resources", "_distutils_hack"}
        or path.suffix == ".pth"
    )


def _largest(site: Path, files: Sequence[Path]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in files:
        top = path.relative_to(site).parts[0].split("-")[0]
        sizes[top] = sizes.get(top, 0) + path.stat().st_size
    return dict(sorted(sizes.items(), key=lambda item: -item[1])[:6])


def _run(*words: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words[:4]))} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
