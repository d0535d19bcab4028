"""FedALA (Zhang et al., AAAI 2023, arXiv 2212.01197): before it trains, a client learns how much of the server's model to take.

Of the head, a client starts a round from a mixture, element by element, of the server's and the one it trained last (equation 2), and
learns its weights W in [0, 1] on its own data (equation 5):

    start = previous + (server - previous) * W,    W <- clip(W - gradient of the loss at ``start`` by W)

by plain gradient descent of rate 1, the paper's. The body is the server's. All of it trains then, and is averaged as in FedAvg. Kept here
is 1 - W, which begins as 0.

The paper learns W on 80 % of the data, to convergence in the first round that has a mixture and for one epoch in later ones. Here it is
one epoch of all data in each round, beyond those of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method, check_count
from fedali.slots import Descent, Phase, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.slots import Named
    from fedali.step.client import ClientStep, Ended, Started


@dataclass(frozen=True)
class FedALA(Method):
    """FedAvg whose clients start from a mixture of the server's head and their last one.

    Args:
        weight_epochs: of learning the mixture in each round, beyond those of the training.
    """

    name: ClassVar[str] = "fedala"
    summary: ClassVar[str] = "FedAvg whose clients first learn how much of the server's head to take"
    slots: ClassVar[tuple[Slot, ...]] = (
        Slot("own_share", "kept", "head", trained=True, descent=Descent(1.0, 0.0, 1.0)),
        Slot("previous", "kept", starts="model"),
    )

    weight_epochs: int = 1

    def __post_init__(self) -> None:
        check_count(1, weight_epochs=self.weight_epochs)

    @property
    def extra_epochs(self) -> int:
        """Those of the weights."""
        return self.weight_epochs

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The weights, then the model."""
        return Phase(("own_share/*",), epochs=self.weight_epochs), Phase(("!own_share/*",))

    def begin(self, start: Started) -> Mapping[str, Mapping[str, Tensor]]:
        """Training starts from the mixture."""
        return {"model": _mixture(start.own, start.server)} if start.phase else {}

    def objective(self, step: ClientStep) -> Tensor:
        """The loss of the model, and that of the mixture; each phase moves one."""
        return step.loss() + step.loss(step.forward(_mixture(step.own, step.server)))

    def finish(self, end: Ended) -> Mapping[str, Mapping[str, Tensor]]:
        """The trained model is the next round's previous one."""
        return {"previous": end.own.model}


def _mixture(own: Named, server: Named) -> dict[str, Tensor]:
    """The server's body, and both heads' mixture."""
    theirs, mine = server.model, own["previous"]
    head = {n: theirs[n] + share * (mine[n] - theirs[n]) for n, share in own["own_share"].items()}
    return {**theirs, **head}
