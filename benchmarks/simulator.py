"""Our simulator put together from its pieces for a benchmark: timed, without evaluation, with checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Context

from benchmarks.engines import TimedEngine
from benchmarks.measure import Stopwatch
from fedali.cohort.buffered.schedule import Schedule
from fedali.cohort.buffered.site import BufferedSite
from fedali.cohort.contract import Site
from fedali.cohort.site import Cohort, CohortSettings, CohortSite
from fedali.cohort.store import ClientStore
from fedali.data import ClientData, Federation, Normalisation
from fedali.engines.base import Engine
from fedali.methods import Layouts, Method, SharedState, Trained, Upload
from fedali.models import Model
from fedali_server.flower import records
from fedali_server.flower.client_app import make_client_app
from fedali_server.flower.strategy import PersonalisedStrategy, RoundResult
from fedali_server.run.folder import Checkpoint, RunFolder
from fedali_simulations.machines.grid import LocalGrid
from fedali_simulations.metrics import MetricsFiles

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Simulation:
    """A site and what drives it."""

    site: CohortSite
    initial: SharedState
    layouts: Layouts
    method: Method
    folder: RunFolder
    watch: Stopwatch

    def run(self, rounds: int, on_round: Callable[[SharedState], None]) -> None:
        """Run ``rounds`` rounds; each writes its metrics and a checkpoint, as ``fedali simulate`` does."""

        def write(result: RoundResult) -> None:
            shared = records.to_shared(result.arrays)
            with self.watch("checkpoint"):
                MetricsFiles(self.folder.path).write_metrics(result.round, result.train)
                kept = {**self.site.store.checkpoint(), **self.site.checkpoint()}
                self.folder.write_checkpoint(Checkpoint(result.round, shared, kept))
            on_round(shared)

        def find_site(_: Context) -> Site:
            return self.site

        strategy = PersonalisedStrategy(
            self.method, self.layouts, on_round=write, generalisation_every=rounds + 1
        )
        grid = LocalGrid(make_client_app(find_site), 1)
        strategy.start(grid, records.from_shared(self.initial), rounds)


def build_simulation(
    model: Model,
    method: Method,
    engine: Engine,
    federation: Federation,
    folder: Path,
    *,
    seed: int,
    participation: float = 1.0,
    schedule: Schedule | None = None,
) -> Simulation:
    """A simulation of all clients of ``federation`` at one site, which writes to ``folder``; with a ``schedule`` rounds are buffered."""
    watch, files = Stopwatch(), RunFolder(folder, {"benchmark": "1"})
    layouts = Layouts(model.parameter_layout, model.prototype_layout)
    timed = _timed(method, watch)
    parts = (
        Cohort(federation),
        range(len(federation.clients)),
        (0,),
        TimedEngine(engine, watch),
        timed,
        layouts,
        CohortSettings(seed, participation, keep_trained=False),
        ClientStore(timed, layouts, files.clients),
    )
    site = CohortSite(*parts) if schedule is None else BufferedSite(schedule, *parts)
    prototypes = {f"alp.{i}": layer.global_prototypes.numpy() for i, layer in enumerate(model.alp_layers)}
    initial = SharedState(model.theta().numpy(), layouts.prototypes.flatten(prototypes))
    return Simulation(site, initial, layouts, timed, files, watch)


def make_federation(x: list[Array], y: list[npt.NDArray[np.int64]], classes: int) -> Federation:
    """Clients that train on all they have; nothing is normalised, nothing is held out."""
    shape = x[0].shape[1:]
    no_x, no_y = np.empty((0, *shape), x[0].dtype), np.empty(0, np.int64)
    clients = tuple(
        ClientData(f"client-{i}", xs, ys, no_x, no_y, no_x, no_y)
        for i, (xs, ys) in enumerate(zip(x, y, strict=True))
    )
    same = Normalisation(np.zeros(1, np.float32), np.ones(1, np.float32))
    return Federation(
        name="synthetic",
        clients=clients,
        input_shape=shape,
        class_names=tuple(str(c) for c in range(classes)),
        normalisation=(same,) * len(clients),
        notes=(),
        licence="",
        citation="",
    )


def _timed(method: Method, watch: Stopwatch) -> Method:
    """``method``, whose alignment on the client side adds to ``watch``."""
    kind = type(method)

    class Timed(kind):  # type: ignore[misc, valid-type]
        def upload(self, client: Trained, shared: SharedState, layouts: Layouts) -> Upload:
            with watch("alignment"):
                return kind.upload(self, client, shared, layouts)

    return Timed(**{field.name: getattr(method, field.name) for field in fields(method)})
