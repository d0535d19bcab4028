"""Engines: ways to train many clients on one machine, behind one interface."""

from fedali_simulations.engines.base import Engine, Query, Samples, TrainingSettings, TrainJob, TrainResult
from fedali_simulations.engines.loop import LoopEngine

__all__ = ["Engine", "LoopEngine", "Query", "Samples", "TrainJob", "TrainResult", "TrainingSettings"]
