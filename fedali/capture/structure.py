"""What a captured graph depends on, as a hash that is known without capturing it."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fedali.alp import ALPLayer
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers.rules import Optimizer
from fedali.tasks import CLASSIFICATION, Task

# What captures and rewrites a graph. Models, methods and optimizers are found by their classes; nothing else is part of one.
CAPTURING = (
    "alp",
    "answers.gate",
    "layout",
    "sinkhorn",
    "slots",
    "step",
    "step.after",
    "step.before",
    "step.client",
    "step.forward",
    "step.gradients",
    "step.training",
    "step.types",
    "step.vectors",
    "targets",
    "task",
    "capture.captures",
    "capture.decompositions",
    "capture.decompositions_onnx",
    "capture.graph",
    "capture.onnx_export",
    "capture.onnx_translate",
    "models.base",
    "models.own.plain",
    "models.pooling",
    "optimizers.rules",
    "optimizers.schedules",
)
_OURS = ("fedali", "fedali_server", "fedali_simulations", "fedali_client")
_PLAIN = (bool, int, float, str, type(None))
_HANDLED = ("training",)  # no part of what is computed: nothing in a model behaves by it


def structure_key(
    model: Model, method: Method, optimizer: Optimizer, *facts: object, task: Task = CLASSIFICATION
) -> str | None:
    """Hash of everything that ``fedali.capture.captures`` turns into a graph: the sources, the model's structure and settings, the
    method, the optimizer, the task, and ``facts`` such as the batch's size.

    None when the model holds something whose meaning cannot be told from here; then only capturing tells.
    """
    try:
        return _key(model, method, optimizer, task, facts)
    except (TypeError, OSError):  # a class that was defined in a notebook, or whose file is gone
        return None


def _key(
    model: Model, method: Method, optimizer: Optimizer, task: Task, facts: tuple[object, ...]
) -> str | None:
    training = dataclasses.replace(method, answer="trained")  # whatever answers
    parts: list[str] = [torch.__version__, repr(training), repr(optimizer), repr(facts), repr(task)]
    sources = {_source(f"fedali.{name}") for name in CAPTURING}
    if any(_is_anywhere(kind) for kind in (type(method), type(task), *map(type, model.modules()))):
        return None
    sources |= {path for thing in (method, optimizer, task) for path in _sources(type(thing))}
    for name, module in model.named_modules():
        kind = type(module)
        parts.append(f"{name}: {kind.__module__}.{kind.__qualname__}")
        sources.update(_sources(kind))
        for key, value in sorted(vars(module).items()):
            if key.startswith("_") or key in _HANDLED:
                continue
            if not _plain(value):
                return None
            parts.append(f"{key}={value!r}")
        for key, tensor in module.named_parameters(recurse=False):
            parts.append(f"{key} {tuple(tensor.shape)}")
        for key, tensor in module.named_buffers(recurse=False):
            if not isinstance(
                module, ALPLayer
            ):  # its prototypes are inputs; another buffer's values are constants
                values = hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
                parts.append(f"{key} {tuple(tensor.shape)} {values}")
    known = hashlib.sha256("\n".join(parts).encode())
    for path in sorted(sources):
        known.update(path.name.encode() + path.read_bytes())
    return known.hexdigest()[:32]


def _sources(kind: type) -> Iterator[Path]:
    """Files of a class and of what it inherits from, torch's and Python's own aside.

    Of somebody's own class all that is loaded of its package, or lies beside its file: what it calls may be there.
    Raises ``TypeError`` for a class without a file.
    """
    for ancestor in kind.__mro__:
        package = ancestor.__module__.partition(".")[0]
        if package in ("torch", "builtins", "typing", "abc", "enum"):
            continue
        file = Path(inspect.getfile(ancestor))
        yield file
        if package not in _OURS:
            for name, module in list(sys.modules.items()):
                other = getattr(module, "__file__", None)
                near = name.partition(".")[0] == package or (other and _beside(Path(other), file))
                if near and other and other.endswith(".py") and Path(other).exists():
                    yield Path(other)


def _beside(other: Path, file: Path) -> bool:
    return file.parent in other.parents and "site-packages" not in other.parts


def _is_anywhere(kind: type) -> bool:
    """Whether a class is of a notebook, a script or a function, so that no file says what it does now."""
    return kind.__module__ == "__main__" or "<locals>" in kind.__qualname__


def _source(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(item) for pair in value.items() for item in pair)
    return isinstance(value, _PLAIN)
