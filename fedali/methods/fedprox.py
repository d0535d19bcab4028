"""FedProx (Li et al., MLSys 2020, arXiv 1812.06127): FedAvg whose clients are held near the server's model.

Client k minimises ``F_k(w) + mu/2 ||w - w_t||^2`` (equation 2), where w_t are the server's parameters of the round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method, check_at_least

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep


@dataclass(frozen=True)
class FedProx(Method):
    """FedAvg with a proximal term.

    Args:
        mu: weight of the squared distance from the server's model.
    """

    name: ClassVar[str] = "fedprox"
    summary: ClassVar[str] = "FedAvg whose clients are held near the server's model"

    mu: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(0, mu=self.mu)

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and the proximal term."""
        from fedali.step.client import squared_distance

        return step.loss() + self.mu / 2 * squared_distance(step.own.model, step.server.model)
