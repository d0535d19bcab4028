"""Trackers that people use, by name: curves of every round beside the run's own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from fedali.errors import MissingExtraError, SettingsError, did_you_mean
from fedali.support.files import write_text
from fedali_simulations.jobs import Job, Report
from fedali_simulations.tracking.callbacks import HOOKS, Callback, Calls, RoundEnded

TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboard_files", "TensorBoard"),
    "mlflow": ("mlflow", "mlflow_runs", "MLflow"),
    "wandb": ("wandb", "wandb_runs", "WeightsAndBiases"),
}  # name: what has to be installed, and whose file and class it is


class Tracker(Callback):
    """A callback that remembers in the run's folder which rounds it has: none is written twice, none is left out.

    Args:
        folder: of the run.
        settings: of the run, by dotted key.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self._path = folder / "tracking" / f"{self.name}.json"
        self._last: dict[str, int] = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}

    def last_round(self, method: str, seed: int) -> int:
        """The last round that is written; 0 before the first."""
        return self._last.get(f"{method}/seed-{seed}", 0)

    def on_round(self, ended: RoundEnded) -> None:
        """Write it."""
        self.write(ended)
        self._last[f"{ended.method}/seed-{ended.seed}"] = ended.round
        write_text(self._path, json.dumps(self._last, indent=1))

    def write(self, ended: RoundEnded) -> None:
        """Write a round's means, so that they are on the disk when this returns."""
        raise NotImplementedError


def check_tracker(name: str) -> None:
    """Raise ``SettingsError`` for a tracker that does not exist, ``MissingExtraError`` for one that is not installed."""
    if name not in TRACKERS:
        raise SettingsError(f"unknown tracker {name!r}; {did_you_mean(name, list(TRACKERS))}")
    needs = TRACKERS[name][0]
    if find_spec(needs) is None:
        if name == "wandb":
            raise SettingsError("tracker wandb is not installed: pip install wandb, then wandb login")
        raise MissingExtraError(needs, "track")


def build_tracker(name: str, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """A tracker by name; raises as ``check_tracker`` does."""
    check_tracker(name)
    _, module, kind = TRACKERS[name]
    made: Callable[..., Tracker] = getattr(import_module(f"fedali_simulations.tracking.{module}"), kind)
    return made(folder, settings)


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise ``SettingsError`` for a callback that has nothing to call, and what ``check_tracker`` does for a tracker's name."""
    for callback in callbacks:
        if isinstance(callback, str):
            check_tracker(callback)
        elif isinstance(callback, type) or not any(hasattr(callback, hook) for hook in HOOKS):
            raise SettingsError(
                f"{callback!r} is no callback: give an object that has on_round, on_client or on_end, or a tracker's name"
            )


def calling(
    callbacks: Sequence[Any], settings: Mapping[str, Any], jobs: Sequence[Job], folder: Path, report: Report
) -> Report:
    """``report``, and the callbacks after it; names stand for trackers."""
    if not callbacks:
        return report
    made = [build_tracker(one, folder, settings) if isinstance(one, str) else one for one in callbacks]
    return Calls(made, jobs, folder, report)
