"""FedDBE (Zhang et al., NeurIPS 2023, arXiv 2311.14975): FedAvg without the clients' bias in the space of embeddings.

A model is a body f and a head g. Client i keeps a vector m_i, trained with the model, that takes in what is its own, and holds the mean of its
embeddings near that of all clients' (section 4):

    loss(g(f(x) + m_i), y) + kappa/2 * || mean_batch f(x) - c ||^2 / d

c is the mean embedding of all clients' samples after the first round, which is FedAvg's, and stays. The mean is a batch's (the paper's mu = 1).
The paper makes c of models that are then thrown away; here that round counts. g(f(x) + m_i) is a model of the same shape, whose head's first
bias has moved: that answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedali.errors import SettingsError
from fedali.methods.base import Layouts, Method, SharedState, Upload, check_at_least
from fedali.slots import Slot, slot_slice

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended


@dataclass(frozen=True)
class FedDBE(Method):
    """A shared model, and a personal shift of its embeddings.

    Args:
        strength: kappa, weight of the mean's squared distance from everybody's. The authors' example takes 50; where embeddings
            are normalised, as those of all models here, that holds the body back (validation of digits, seeds 5 and 6: 88.1, 90.1, 87.6 % for 0, 1, 10).
    """

    name: ClassVar[str] = "feddbe"
    summary: ClassVar[str] = "FedAvg with a personal shift of embeddings, whose mean is held near everybody's"
    slots: ClassVar[tuple[Slot, ...]] = (
        Slot("shift", "kept", ("embedding",), trained=True),
        Slot("centre", "shared", ("embedding",)),
        Slot("known", "shared", (1,)),  # 1 once there is a centre
        Slot("shifted", "kept", starts="model"),
        Slot("sum", "round", ("embedding",)),
    )
    answer_slot: ClassVar[str] = "shifted"

    strength: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, strength=self.strength)

    def objective(self, step: ClientStep) -> Tensor:
        """The loss of the shifted embeddings, and the pull; before there is a centre, the task's loss."""
        z, weights, known = step.output.embedding, step.batch.weights, step.server["known"]
        shifted = step.head(step.own.model, z + known * step.own["shift"])
        mean = (z * weights[:, None]).sum(0) / weights.sum().clamp(min=1.0)
        pull = (mean - step.server["centre"]).square().mean() / 2
        loss: Tensor = step.loss(shifted) + self.strength * (known * pull).sum()
        return loss

    def measure(self, step: ClientStep) -> Mapping[str, Tensor]:
        """The sum of embeddings."""
        return {"sum": (step.output.embedding * step.batch.weights[:, None]).sum(0)}

    def finish(self, end: Ended) -> Mapping[str, Any]:
        """The client's mean, and the model that answers."""
        model = end.own.model
        weight, bias = _first_layer(model)
        moved = model[bias] + model[weight] @ end.own["shift"]
        centre = end.measured["sum"] / end.samples
        return {"shifted": {**model, bias: moved}, "centre": centre, "known": end.server["known"] * 0 + 1}

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """The mean model; the centre is the first round's."""
        new = super().aggregate(total, shared, layouts)
        where = slot_slice(layouts.parameters, "centre")
        if shared.theta[slot_slice(layouts.parameters, "known")] > 0:
            new.theta[where] = shared.theta[where]
        return new


def _first_layer(model: Mapping[str, Tensor]) -> tuple[str, str]:
    """Names of the weight and the bias that a head begins with."""
    head = [name for name in model if name.startswith("head.")]
    if len(head) > 1 and model[head[0]].ndim == 2 and head[1] == head[0].removesuffix("weight") + "bias":
        return head[0], head[1]
    raise SettingsError("feddbe needs a model whose head begins with a linear layer that has a bias")
