"""FedProto (Tan et al., AAAI 2022, arXiv 2105.00243): clients share prototypes of classes, and no parameters.

A class's prototype is the mean embedding of a client's samples of it (equation 3); the server averages them by their numbers of
samples (equation 6); clients pull their embeddings to those of their classes (equation 7; the squared distance here, a mean over
the embedding, as in the authors' code):

    F_k(w) + lambda * mean_i || z_i - C[y_i] ||^2 / d

A class that nobody has sent yet pulls nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedali.methods.base import Layouts, Method, SharedState, Upload, check_at_least
from fedali.slots import Slot, slot_slice

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended


@dataclass(frozen=True)
class FedProto(Method):
    """Personal models whose embeddings are drawn to the mean embeddings of classes.

    Args:
        strength: lambda, weight of the pull.
    """

    name: ClassVar[str] = "fedproto"
    needs_classes: ClassVar[bool] = True
    summary: ClassVar[str] = "personal models that share the mean embeddings of classes alone"
    slots: ClassVar[tuple[Slot, ...]] = (
        Slot("class_prototypes", "shared", ("classes", "embedding")),
        Slot(
            "class_shares", "shared", ("classes",)
        ),  # down: 1 for a class that is known; up: its share of the samples
        Slot("sums", "round", ("classes", "embedding")),
        Slot("counts", "round", ("classes",)),
    )

    strength: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, strength=self.strength)

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Every parameter."""
        return ("*",)

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and the pull."""
        y = step.batch.y
        target, known = step.server["class_prototypes"][y], step.server["class_shares"][y]
        pull = (step.output.embedding - target).square().mean(-1) * known
        return step.loss() + self.strength * step.mean(pull)

    def measure(self, step: ClientStep) -> Mapping[str, Tensor]:
        """Sums of embeddings and numbers of samples, by class."""
        import torch

        weights, logits = step.batch.weights, step.output.logits
        classes = torch.arange(logits.shape[1], device=logits.device)
        member = (step.batch.y[:, None] == classes).to(weights.dtype) * weights[:, None]
        return {"sums": member.T @ step.output.embedding, "counts": member.sum(0)}

    def finish(self, end: Ended) -> Mapping[str, Tensor]:
        """What is sent: both by the number of samples, which the server's sum multiplies with again."""
        sums, counts = end.measured["sums"], end.measured["counts"]
        return {"class_prototypes": sums / end.samples, "class_shares": counts / end.samples}

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """The mean embedding of each class that anybody has; the rest stay as they were."""
        means, where = super().aggregate(total, shared, layouts).theta, layouts.parameters
        shares = means[slot_slice(where, "class_shares")]
        sums = means[slot_slice(where, "class_prototypes")].reshape(len(shares), -1)
        before = shared.theta[slot_slice(where, "class_prototypes")].reshape(sums.shape)
        there = shares > 0
        new = np.where(there[:, None], sums / np.where(there, shares, 1)[:, None], before)
        known = np.maximum(shared.theta[slot_slice(where, "class_shares")], there)
        means[slot_slice(where, "class_prototypes")] = new.reshape(-1)
        means[slot_slice(where, "class_shares")] = known
        return SharedState(means, shared.prototypes)
