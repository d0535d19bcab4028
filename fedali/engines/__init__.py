"""Engines: ways to train many clients on one machine, behind one interface (``base``), chosen by name (``choose``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.engines.base import Engine as Engine
    from fedali.engines.base import Samples as Samples
    from fedali.engines.base import TrainJob as TrainJob
    from fedali.engines.base import TrainResult as TrainResult
    from fedali.engines.choose import build_engine as build_engine

_HOMES = {
    "Engine": "base",
    "Samples": "base",
    "TrainJob": "base",
    "TrainResult": "base",
    "build_engine": "choose",
}

__all__ = ["Engine", "Samples", "TrainJob", "TrainResult", "build_engine"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
