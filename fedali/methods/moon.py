"""MOON (Li et al., CVPR 2021, arXiv 2103.16257): model-contrastive federated learning.

A client's embedding z of a sample is drawn to that of the server's model, z_glob, and away from that of the client's own
model of the round before, z_prev (equation 3); FedAvg otherwise:

    F_k(w) + mu * -log( exp(sim(z, z_glob)/tau) / (exp(sim(z, z_glob)/tau) + exp(sim(z, z_prev)/tau)) ),   sim: cosine
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method, check_at_least
from fedali.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended


@dataclass(frozen=True)
class Moon(Method):
    """FedAvg with a contrast between the server's model and a client's last.

    Args:
        mu: weight of the contrast.
        temperature: tau.
    """

    name: ClassVar[str] = "moon"
    summary: ClassVar[str] = (
        "FedAvg whose embeddings are drawn to the server's and away from the client's last"
    )
    slots: ClassVar[tuple[Slot, ...]] = (Slot("previous", "kept", starts="model"),)

    mu: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(0, mu=self.mu)
        check_at_least(1e-6, temperature=self.temperature)

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and the contrast."""
        from torch.nn.functional import cosine_similarity, softplus

        z = step.output.embedding
        to_server = cosine_similarity(z, step.forward(step.server.model).embedding.detach())
        to_previous = cosine_similarity(z, step.forward(step.own["previous"]).embedding.detach())
        contrast = softplus((to_previous - to_server) / self.temperature)
        return step.loss() + self.mu * step.mean(contrast)

    def finish(self, end: Ended) -> Mapping[str, Mapping[str, Tensor]]:
        """The trained model is the next round's previous one."""
        return {"previous": end.own.model}
