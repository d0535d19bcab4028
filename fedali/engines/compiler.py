"""Compiles captured graphs to libraries, once for each machine, and keeps them in the user's cache folder.

Each graph is compiled in a process of its own, graphs side by side: the compiler's memory goes with the process, and a
simulation whose graphs are cached never loads it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import structlog
import torch

from fedali.capture.captures import Graph
from fedali.errors import FedaliError
from fedali.support.files import atomic, reporting, write_text
from fedali.support.places import cache_folder

_FORMAT = "2"  # change with the options below


def compiler() -> str | None:
    """The C++ compiler torch would use, None when there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def compile_graphs(
    capture: Callable[[], Sequence[Graph]], folder: Path | None = None, key: str | None = None
) -> list[Path]:
    """Libraries of graphs, for ``fedali.engines.native.NativeGraph``; cached ones at once.

    Args:
        capture: gives the graphs, captured on the CPU.
        folder: to keep them in; by default ``compiled`` of ``fedali.support.places.cache_folder``.
        key: names what ``capture`` gives (``structure_key``): known graphs are not even captured.

    Raises:
        FedaliError: the compiler failed; the message names its log.
    """
    folder = folder or cache_folder("compiled")
    index = None if key is None else folder / f"{_hash(key)}.json"
    if index is not None and index.exists():
        libraries = [folder / name for name in json.loads(index.read_text())]
        if all(path.exists() for path in libraries):
            return libraries
    graphs = capture()
    libraries = [folder / f"{_hash(graph.fingerprint())}.so" for graph in graphs]
    missing = {path: graph for path, graph in zip(libraries, graphs, strict=True) if not path.exists()}
    if missing:
        with reporting(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):  # several simulations may want the same graph
            _compile({path: graph for path, graph in missing.items() if not path.exists()})
    if index is not None:
        write_text(index, json.dumps([path.name for path in libraries]))
    return libraries


def _hash(key: str) -> str:
    parts = (_FORMAT, key, torch.__version__, _machine(), compiler() or "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@cache
def _machine() -> str:
    """What compiled code depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    known = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return "\n".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *known])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(graphs: dict[Path, Graph]) -> None:
    """Compile each graph to its path, as many at a time as there are cores."""
    if not graphs:
        return
    noun = "graph" if len(graphs) == 1 else "graphs"
    structlog.get_logger().info(
        f"compiling {len(graphs)} {noun} of the training step for this machine, once: half a minute to minutes"
    )
    waiting = list(graphs.items())
    running: list[tuple[subprocess.Popen[bytes], Path, Path]] = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="fedali-compile-") as scratch:
        try:
            while waiting or running:
                while waiting and len(running) < cores:
                    path, graph = waiting.pop()
                    running.append((*_start(graph, path, Path(scratch)), path))
                for process, log, path in list(running):
                    if process.poll() is None:
                        continue
                    running.remove((process, log, path))
                    if process.returncode or not path.exists():
                        kept = path.with_suffix(".log")
                        shutil.copyfile(log, kept)
                        raise FedaliError(
                            f"the C++ compiler failed on the training step: see {kept}. Use engine 'loop'"
                        )
                time.sleep(0.05)
        finally:
            for process, _, _ in running:
                process.kill()
                process.wait()


def _start(graph: Graph, path: Path, scratch: Path) -> tuple[subprocess.Popen[bytes], Path]:
    exported, log = scratch / f"{path.stem}.pt2", scratch / f"{path.stem}.log"
    torch.export.save(torch.export.export(graph.module, graph.example), exported)
    command = [sys.executable, "-m", "fedali.engines.compiler", str(exported), str(path)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    return process, log


def _main(exported: Path, library: Path) -> None:
    """The compiling process: an exported program in, a library out."""
    from fedali.engines.products import use_onednn

    torch.set_num_threads(1)  # compiled for one thread: clients run side by side
    use_onednn()
    program = torch.export.load(exported)
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(exported.with_name(f"{exported.stem}-package.pt2"))
    )
    with zipfile.ZipFile(package) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".so"))
        with atomic(library) as temporary:
            temporary.write_bytes(archive.read(name))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
