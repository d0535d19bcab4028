"""MLflow runs, in ``mlflow/`` of the run's folder: ``mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db``; or where ``MLFLOW_TRACKING_URI`` says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedali.support.files import reporting
from fedali_simulations.tracking.callbacks import RoundEnded, RunEnded
from fedali_simulations.tracking.trackers import Tracker

_TAG = "fedali.run"
_AT_ONCE = 100  # parameters, as MLflow takes them


class MLflow(Tracker):
    """A run for each method and seed, with the scenario's settings as parameters."""

    name: ClassVar[str] = "mlflow"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        place = (folder / "mlflow").absolute()
        self._artifacts, where = None, os.environ.get("MLFLOW_TRACKING_URI")
        if where is None:
            with reporting(place):
                place.mkdir(parents=True, exist_ok=True)
            self._artifacts, where = (place / "artifacts").as_uri(), f"sqlite:///{place / 'mlflow.db'}"
        self._client: Any = MlflowClient(tracking_uri=where)
        self._runs: dict[tuple[str, int], str] = {}

    def write(self, ended: RoundEnded) -> None:
        """A step of each metric, unless a killed process has written it already."""
        from mlflow.entities import Metric

        run, values = self._run(ended.method, ended.seed), {**ended.means, "clients": float(ended.clients)}
        known = {one.step for one in self._client.get_metric_history(run, "clients")}
        if ended.round in known:
            return
        now = int(1000 * time.time())
        self._client.log_batch(run, [Metric(name, value, now, ended.round) for name, value in values.items()])

    def on_end(self, ended: RunEnded) -> None:
        """The run is finished."""
        run = self._run(ended.method, ended.seed)
        self._client.set_tag(run, "best_round", str(ended.facts.get("best_round", "")))
        self._client.set_terminated(run)

    def _run(self, method: str, seed: int) -> str:
        key = method, seed
        if key not in self._runs:
            experiment = str(self.settings["name"])
            known = self._client.get_experiment_by_name(experiment)
            if known is None:
                where = self._client.create_experiment(experiment, self._artifacts)
            else:
                where = known.experiment_id
            tag = f"{self.folder.absolute()}/{method}/seed-{seed}"
            found = [run for run in self._client.search_runs([where]) if run.data.tags.get(_TAG) == tag]
            self._runs[key] = found[0].info.run_id if found else self._begun(where, tag, method, seed)
        return self._runs[key]

    def _begun(self, experiment: str, tag: str, method: str, seed: int) -> str:
        from mlflow.entities import Param

        name = f"{method}/seed-{seed}"
        run = str(self._client.create_run(experiment, run_name=name, tags={_TAG: tag}).info.run_id)
        settings = {**self.settings, "method": method, "seed": seed}
        params = [Param(key, str(value)[:500]) for key, value in settings.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(run, params=params[start : start + _AT_ONCE])
        return run
