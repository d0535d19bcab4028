"""Models by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.models.names import MODEL_NAMES
from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.models.base import ALPSettings as ALPSettings
    from fedali.models.base import Model as Model
    from fedali.models.base import Output as Output
    from fedali.models.registry import MODELS as MODELS
    from fedali.models.registry import build_model as build_model


_HOMES = {
    "ALPSettings": "base",
    "MODELS": "registry",
    "Model": "base",
    "Output": "base",
    "build_model": "registry",
}

__all__ = ["MODELS", "MODEL_NAMES", "ALPSettings", "Model", "Output", "build_model"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)  # names can be checked without torch
