"""FedNTD (Lee et al., NeurIPS 2022, arXiv 2106.03097): a client keeps what the server's model says of the classes that are not true.

Forgetting of other clients' classes is held off by distillation from the server's model, of the logits without the true class's
(equations 3 to 5). For a sample of class y, over the classes c other than y,

    F_k(w) + beta * tau^2 * KL( softmax(server's logits / tau) || softmax(logits / tau) )

as in the authors' code (github.com/Lee-Gihun/FedNTD, criterion.py); FedAvg otherwise. Of two classes one is left, and nothing to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method, check_at_least

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep

_OUT = -1e9  # the logit of a class that takes no part


@dataclass(frozen=True)
class FedNTD(Method):
    """FedAvg with not-true distillation from the server's model.

    Args:
        beta: weight of the distillation.
        temperature: tau; 3 is the default of the authors' loss, 1 is in their configuration for CIFAR-10.
    """

    name: ClassVar[str] = "fedntd"
    needs_classes: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "FedAvg that keeps what the server's model says of classes other than the true one"
    )

    beta: float = 1.0
    temperature: float = 3.0

    def __post_init__(self) -> None:
        check_at_least(0, beta=self.beta)
        check_at_least(1e-6, temperature=self.temperature)

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and the distillation."""
        import torch

        classes = torch.arange(step.output.logits.shape[1], device=step.batch.y.device)
        true = step.batch.y[:, None] == classes

        def not_true(logits: Tensor) -> Tensor:
            """Logarithms of the shares of all classes but the true one, [B, classes]."""
            return torch.where(true, _OUT, logits / self.temperature).log_softmax(-1)

        server = not_true(step.forward(step.server.model).logits.detach())
        divergence = (server.exp() * (server - not_true(step.output.logits))).sum(-1)
        return step.loss() + self.beta * self.temperature**2 * step.mean(divergence)
