"""Optimizers of the local step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.optimizers.rules import SGD as SGD
    from fedali.optimizers.rules import Adam as Adam
    from fedali.optimizers.rules import Optimizer as Optimizer

_HOMES = {
    "Optimizer": "rules",
    "Adam": "rules",
    "SGD": "rules",
}

__all__ = ["SGD", "Adam", "Optimizer"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
