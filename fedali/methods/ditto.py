"""Ditto (Li et al., ICML 2021, arXiv 2012.04221): FedAvg, and beside it a personal model that is held near the server's.

Client k trains the global model w by FedAvg, and its own v_k on ``F_k(v) + lambda/2 ||v - w_t||^2`` (equation 1, algorithm 1);
w_t is what the server sent. It answers with v_k. Here both see the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method, check_at_least
from fedali.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep


@dataclass(frozen=True)
class Ditto(Method):
    """A global model by FedAvg, and a personal one near it.

    Args:
        strength: lambda, weight of the personal model's squared distance from the server's.
    """

    name: ClassVar[str] = "ditto"
    summary: ClassVar[str] = "FedAvg, and a second model of each client's own that is held near the server's"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("personal", "kept", starts="model", trained=True),)
    answer_slot: ClassVar[str] = "personal"

    strength: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(0, strength=self.strength)

    def objective(self, step: ClientStep) -> Tensor:
        """Both objectives; neither depends on the other's parameters, so that their gradients do not mix."""
        from fedali.step.client import squared_distance

        personal = step.own["personal"]
        near = self.strength / 2 * squared_distance(personal, step.server.model)
        return step.loss() + step.loss(step.forward(personal)) + near
