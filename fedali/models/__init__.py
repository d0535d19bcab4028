"""Models by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedali.models.base import ALPSettings as ALPSettings
    from fedali.models.base import Model as Model
    from fedali.models.base import Output as Output
    from fedali.models.registry import MODELS as MODELS
    from fedali.models.registry import build_model as build_model

MODEL_NAMES = ("mlp", "cnn1d", "cnn2d", "hart")

_HOMES = {
    "ALPSettings": "base",
    "MODELS": "registry",
    "Model": "base",
    "Output": "base",
    "build_model": "registry",
}

__all__ = ["MODELS", "MODEL_NAMES", "ALPSettings", "Model", "Output", "build_model"]


def __getattr__(name: str) -> Any:
    """Load what is asked for: names can be checked without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
