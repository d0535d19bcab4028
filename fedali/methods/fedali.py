"""FedAli: prototypes, aligned by optimal transport, say for each sample whose model answers.

The paper's method (Ek et al., arXiv 2411.10595) is ``fedali.methods.fedali_paper``: its prototypes pull embeddings in a layer. Here they
decide instead. One round:

1. The server sends its weights, and the global prototypes G.
2. A client trains on its data, by its plain loss and in part by balanced softmax, as if it had as many samples of each class; the larger a part, the
   more unevenly it has them. What it has few of it forgets less of, and what all of them make together is better.
3. Its local prototypes L are the centres of its training embeddings under the weights that it was sent. It sends its weights, and L aligned
   to G by optimal transport.
4. The server averages both.
5. A sample that is nearer to L than to G is answered by the client's own model, another one by the shared model (``fedali.answers.gate``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from fedali.answers import Answer
from fedali.errors import SettingsError
from fedali.methods.base import Method
from fedali.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Started
    from fedali.tasks import Task

_NOTHING = 1e-30  # the logarithm of 0 times 0 is none


@dataclass(frozen=True)
class FedAli(Method):
    """Weights are averaged; a client's own model answers for samples of its own kind, and the shared one for others.

    Args:
        balance: share of balanced softmax (Ren et al., NeurIPS 2020) in the loss of a client that has one class alone, from 0 to 1. Another client's is
            this times ``1 - H / log(classes)``, H the entropy of its classes' shares: nothing where it has them evenly. 0 trains as FedAvg does, and
            so does a task without classes.
    """

    name: ClassVar[str] = "fedali"
    summary: ClassVar[str] = (
        "weights averaged; prototypes aligned by optimal transport decide whose model answers a sample"
    )
    balance: float = 0.5
    answer: Answer = field(default="gate", kw_only=True)

    def __post_init__(self) -> None:
        if (
            isinstance(self.balance, bool)
            or not isinstance(self.balance, int | float)
            or not 0 <= self.balance <= 1
        ):
            raise SettingsError(f"balance is {self.balance!r}, it has to be a number from 0 to 1")

    def for_task(self, task: Task) -> FedAli:
        """Without balance where there is no class to have more of."""
        super().for_task(task)
        return self if task.kind == "classes" else replace(self, balance=0.0)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What balanced softmax goes by, if there is any."""
        return (Slot("class_counts", "kept", ("classes",)),) if self.balance else ()

    def begin(self, start: Started) -> Mapping[str, Tensor]:
        """A client's samples of each class."""
        return {"class_counts": start.class_counts} if self.balance else {}

    def objective(self, step: ClientStep) -> Tensor:
        """The plain loss, and the balanced one by how unevenly the client has its classes."""
        if not self.balance:
            return step.loss()
        counts = step.own["class_counts"]
        part = self.balance * _unevenness(counts)
        return (1 - part) * step.loss() + part * step.balanced_loss(counts)


def _unevenness(counts: Tensor) -> Tensor:
    """From 0, as many samples of each class, to 1, one class alone; of ``counts`` [classes]."""
    shares = counts / counts.sum().clamp(min=1.0)
    entropy = -(shares * shares.clamp(min=_NOTHING).log()).sum()
    return 1 - entropy / math.log(max(counts.shape[0], 2))
