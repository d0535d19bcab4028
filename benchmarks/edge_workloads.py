"""What the edge client is measured with: three trainings. Torch-free, since devices are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BATCH = 32
BATCHES = 10  # of an epoch
CLASSES = ("downstairs", "upstairs", "sitting", "standing", "walking", "jogging")
SHAPE = (128, 6)
INFLUENCE, DECAY, LEARNING_RATE = 0.2, 0.999, 1e-3
SMALL = (64,)
REFERENCE = (2048, 1024, 512, 256, 128, 64)  # prototypes of the paper's setting


@dataclass(frozen=True)
class EdgeWorkload:
    """A model of the registry and what of it a device trains.

    Args:
        name: short name.
        description: a line for the report.
        model: name in the registry; its options are the defaults.
        prototypes: of its ALP layers.
        mode: of the bundle.
        steps: measured in one process.
        most_time: bar: time of a step over that in torch.
        most_memory: bar: peak memory of a process over that of one with torch.
    """

    name: str
    description: str
    model: str
    prototypes: tuple[int, ...]
    mode: Literal["full", "head"]
    steps: int
    most_time: float
    most_memory: float


WORKLOADS = {
    workload.name: workload
    for workload in (
        EdgeWorkload("cnn1d", "`cnn1d`, all parameters", "cnn1d", SMALL, "full", 200, 0.75, 0.33),
        EdgeWorkload("cnn1d-head", "`cnn1d`, the head alone", "cnn1d", SMALL, "head", 2000, 0.3, 0.25),
        EdgeWorkload("hart", "`hart`, all parameters", "hart", REFERENCE, "full", 30, 0.95, 0.6),
    )
}
