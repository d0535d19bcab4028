"""What becomes a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers.gate import Gate
from fedali.bundle.manifest import BundleNormalisation, BundleTask, Component
from fedali.data.facts import NO_FACTS, DataFacts
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers.rules import SGD, Adam
from fedali.optimizers.schedules import CONSTANT, RateSchedule
from fedali.targets import Targets
from fedali.tasks import CLASSIFICATION, Task, task_name

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Start:
    """What a device starts from: its own theta [P] and local prototypes [L], and the server's.

    ``gate``: of a client that answers by one, whose shared model is the server's here; None where it has none yet.
    """

    theta: Vector
    local_prototypes: Vector
    shared_theta: Vector
    shared_prototypes: Vector
    gate: Gate | None = None

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """As ``state.safetensors`` of a bundle holds them."""
        names = ("theta", "local_prototypes", "shared_theta", "shared_prototypes")
        found = {name: np.array(getattr(self, name), np.float32) for name in names}
        for name in names[:2]:
            shared = f"shared_{name.removeprefix('local_')}"
            if np.array_equal(found[name], found[shared]):  # a reader knows; it halves the file
                del found[shared]
        if self.gate is not None:
            found["own"] = np.array(self.gate.own, np.float32)
            found["gate"] = np.array([self.gate.middle, self.gate.spread], np.float32)
        return found


@dataclass(frozen=True)
class Source:
    """What becomes a bundle.

    Args:
        name: for people.
        model: the architecture; its weights are not read.
        component: the model's name and options in the registry, and its ALP settings.
        method: what is trained, and how.
        optimizer: of the local training.
        start: parameters and prototypes.
        round: of the federation that ``start`` is from; 0 is before the first.
        decay: of local prototypes.
        normalisation: of raw samples.
        input_shape: of one sample.
        classes: their names.
        data: what another file of the kind needs to give such samples.
        task: what is learnt, fitted to the data.
        targets: of the data; None for classes alone.
        schedule: of the learning rate over rounds.
    """

    name: str
    model: Model
    component: Component
    method: Method
    optimizer: Adam | SGD
    start: Start
    round: int
    decay: float
    normalisation: BundleNormalisation
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    data: DataFacts = NO_FACTS
    schedule: RateSchedule = CONSTANT
    task: Task = CLASSIFICATION
    targets: Targets | None = None

    @property
    def bundled_task(self) -> BundleTask | None:
        """What a bundle says of the task; nothing of classification as ever."""
        if self.task == CLASSIFICATION:
            return None
        options = dict(vars(self.task))
        return BundleTask(
            task_name(self.task), options, self.targets or Targets(self.classes, self.task.kind)
        )
