"""Engines: ways to train many clients on one machine, behind one interface."""

from fedali_simulations.engines.base import Engine, Query, Samples, TrainingSettings, TrainJob, TrainResult
from fedali_simulations.engines.choose import EngineName, build_engine, resolve
from fedali_simulations.engines.loop import LoopEngine

__all__ = [
    "Engine",
    "EngineName",
    "LoopEngine",
    "Query",
    "Samples",
    "TrainJob",
    "TrainResult",
    "TrainingSettings",
    "build_engine",
    "resolve",
]
