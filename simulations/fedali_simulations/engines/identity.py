"""What a captured graph depends on, as a hash that is known without capturing it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch

import fedali
from fedali.alp import ALPLayer
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers import Optimizer

_PLAIN = (bool, int, float, str, type(None))
_HANDLED = ("training",)  # no part of what is computed: nothing in a model behaves by it


def structure_key(model: Model, method: Method, optimizer: Optimizer, *facts: object) -> str | None:
    """Hash of everything that ``fedali.capture`` turns into a graph: the sources, the model's structure and settings, the
    method, the optimizer, and ``facts`` such as the batch's size.

    None when the model holds something whose meaning cannot be told from here; then only capturing tells.
    """
    parts: list[str] = [torch.__version__, repr(method), repr(optimizer), repr(facts)]
    sources = {path for path in Path(fedali.__file__).parent.rglob("*.py") if path.parent.name != "data"}
    sources |= {Path(inspect.getfile(type(thing))) for thing in (method, optimizer)}
    for name, module in model.named_modules():
        kind = type(module)
        parts.append(f"{name}: {kind.__module__}.{kind.__qualname__}")
        if not kind.__module__.startswith("torch."):
            sources.add(Path(inspect.getfile(kind)))
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


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_plain(item) for item in value)
    return isinstance(value, _PLAIN)
