"""Weights & Biases, as its own settings say (``WANDB_MODE=offline`` needs no account); its files are in ``wandb/`` of the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedali_simulations.tracking.callbacks import RoundEnded, RunEnded
from fedali_simulations.tracking.trackers import Tracker


class WeightsAndBiases(Tracker):
    """A run for each method and seed, in the project ``fedali`` unless ``WANDB_PROJECT`` says otherwise, in a group for the folder."""

    name: ClassVar[str] = "wandb"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self._runs: dict[tuple[str, int], Any] = {}

    def write(self, ended: RoundEnded) -> None:
        """A step; a run that is resumed has the id that it had, and W&B takes no step again."""
        values = {**ended.means, "clients": ended.clients}
        self._run(ended.method, ended.seed).log(values, step=ended.round, commit=True)

    def on_end(self, ended: RunEnded) -> None:
        """The run is finished."""
        run = self._run(ended.method, ended.seed)
        run.summary["best_round"] = ended.facts.get("best_round")
        run.finish()

    def _run(self, method: str, seed: int) -> Any:
        key = method, seed
        if key not in self._runs:
            import os

            import wandb

            name = f"{method}/seed-{seed}"
            self._runs[key] = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "fedali"),
                id=hashlib.sha256(f"{self.folder.absolute()}/{name}".encode()).hexdigest()[:16],
                name=name,
                group=self.folder.name,
                dir=str(self.folder),
                config={**self.settings, "method": method, "seed": seed},
                resume="allow",
                reinit="create_new",
            )
        return self._runs[key]
