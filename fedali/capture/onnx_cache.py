"""Exported graphs kept in the user's cache folder: one of a kind is captured and exported once on a machine.

Processes that want the same graphs at the same time share the work: each makes one that no other is making.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog
import torch

from fedali.capture.graph import Graph
from fedali.capture.onnx_export import export_graph
from fedali.errors import FedaliError, MissingExtraError
from fedali.support.files import write_bytes
from fedali.support.places import cache_folder


def exported(
    captures: Mapping[str, Callable[[], Graph]],
    key: str | None,
    folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """ONNX models by name; those that are known are neither captured nor exported.

    Args:
        captures: make the graphs.
        key: says what they are of (``fedali.capture.structure.structure_key``, with everything in its facts that differs between
            uses); None where nothing does: then all are made.
        folder: to keep them in; by default ``onnx`` of ``fedali.support.places.cache_folder``. One that cannot be written costs time, no
            more.
        report: is told the name of each that is made; without, a line of the log says how many.

    Raises ``MissingExtraError`` without the packages of the extra ``export``.
    """
    folder = folder or cache_folder("onnx")
    paths = {name: folder / f"{_hash(key, name)}.onnx" if key else None for name in captures}
    known = {name: path.read_bytes() for name, path in paths.items() if path is not None and path.exists()}
    missing = [name for name in captures if name not in known]
    if missing and report is None:
        noun = "graph" if len(missing) == 1 else "graphs"
        structlog.get_logger().info(f"exporting {len(missing)} {noun} to ONNX, once: seconds to a minute")
    for wait in (False, True):  # first what nobody is making
        for name in [name for name in missing if name not in known]:
            path = paths[name]
            with _alone(path, wait) as free:
                if path is not None and path.exists():
                    known[name] = path.read_bytes()
                elif free:
                    if report is not None:
                        report(name)
                    known[name] = export_graph(captures[name]())
                    if path is not None:
                        with contextlib.suppress(FedaliError):
                            write_bytes(path, known[name])
    return {name: known[name] for name in captures}


@contextlib.contextmanager
def _alone(path: Path | None, wait: bool) -> Iterator[bool]:
    """Whether no other process makes the graph at ``path``; none begins to meanwhile.

    Each graph is a byte of one file, locked by its process. Where nothing can be locked everybody works alone.
    """
    handle = None
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path.parent / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    if path is None or handle is None:
        yield True
        return
    free = True
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.lockf(
                    handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, int(path.stem[:15], 16)
                )
            except BlockingIOError:
                free = False
        yield free
    finally:
        os.close(handle)


def _hash(key: str, name: str) -> str:
    try:
        versions = [f"{package} {version(package)}" for package in ("onnx", "onnx-ir", "onnxscript")]
    except PackageNotFoundError as error:
        raise MissingExtraError(error.name, "export") from error
    return hashlib.sha256("\n".join([key, name, torch.__version__, *versions]).encode()).hexdigest()[:32]
