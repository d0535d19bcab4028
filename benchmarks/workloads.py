"""The work that is compared: models, sizes of clients, and what one step costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedali.alp import Alignment
from fedali.models import ALPSettings, Model, build_model

BATCH_SIZE = 64
EPOCHS = 5
LEARNING_RATE = 1e-3
INFLUENCE = 0.2  # of the ALP layers, from the second round on
SEED = 0


class WindowCNN(Model):
    """Three convolutions over windows [B, samples, channels], mean over time, one ALP layer."""

    def __init__(self, channels: Sequence[int], classes: int, alp: ALPSettings) -> None:
        super().__init__()
        first, second, third = channels
        self.first = nn.Conv1d(6, first, 9, padding=4)
        self.second = nn.Conv1d(first, second, 5, padding=2)
        self.third = nn.Conv1d(second, third, 3, padding=1)
        self.alp = alp.layers((third,))[0]
        self.head = nn.Linear(third, classes)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d]."""
        z = F.max_pool1d(F.relu(self.first(x.transpose(1, 2))), 2)
        z = F.max_pool1d(F.relu(self.second(z)), 2)
        embedding: Tensor = self.alp(F.relu(self.third(z)).mean(-1), alignment)
        return embedding


class DigitCNN(Model):
    """Two convolutions over grey images [B, 1, 28, 28], a linear embedding, one ALP layer."""

    def __init__(self, classes: int, alp: ALPSettings) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 5)
        self.second = nn.Conv2d(32, 64, 5)
        self.embed = nn.Linear(1024, 128)
        self.alp = alp.layers((128,))[0]
        self.head = nn.Linear(128, classes)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d]."""
        z = F.max_pool2d(F.relu(self.first(x)), 2)
        z = F.max_pool2d(F.relu(self.second(z)), 2)
        embedding: Tensor = self.alp(F.relu(self.embed(z.flatten(1))), alignment)
        return embedding


@dataclass(frozen=True)
class Workload:
    """A model, its samples, and how many clients train in a round.

    Args:
        name: short name.
        description: a line for the report.
        shape: of a sample.
        classes: number of classes.
        clients: that train in each round.
        steady_rounds: rounds that are measured, after the first.
        build: the model, freshly initialised.
        idle_clients: in rounds without training, which show what else a client costs; 0 for none.
    """

    name: str
    description: str
    shape: tuple[int, ...]
    classes: int
    clients: int
    steady_rounds: int
    build: Callable[[], Model]
    idle_clients: int = 0

    def model(self) -> Model:
        """The model; always the same weights, without touching the global random state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return self.build()


_ONE_LAYER = ALPSettings(num_prototypes=(64,))
_SIX_LAYERS = ALPSettings(num_prototypes=(2048, 1024, 512, 256, 128, 64))

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "A",
            "1-D CNN 6-64-128-128, ALP(64), windows [128, 6]",
            (128, 6),
            6,
            24,
            2,
            lambda: WindowCNN((64, 128, 128), 6, _ONE_LAYER),
        ),
        Workload(
            "As",
            "the CNN of A with 16, 32, 32 channels",
            (128, 6),
            6,
            24,
            3,
            lambda: WindowCNN((16, 32, 32), 6, _ONE_LAYER),
            idle_clients=100,
        ),
        Workload(
            "B",
            "HART, six ALP layers with 2048 to 64 prototypes, windows [128, 6]",
            (128, 6),
            6,
            12,
            1,
            lambda: build_model("hart", (128, 6), 6, alp=_SIX_LAYERS),
            idle_clients=10,
        ),
        Workload(
            "C",
            "2-D CNN 1-32-64, linear 1024-128, ALP(64), images [1, 28, 28]",
            (1, 28, 28),
            10,
            24,
            2,
            lambda: DigitCNN(10, _ONE_LAYER),
        ),
    )
}


def flops_per_sample(workload: Workload) -> float:
    """Matrix and convolution operations of one plain training step, for each sample of a full batch."""
    model = workload.model().train()
    x = torch.zeros(BATCH_SIZE, *workload.shape)
    y = torch.zeros(BATCH_SIZE, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(x).logits, y).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / BATCH_SIZE
