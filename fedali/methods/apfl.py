"""APFL (Deng et al., 2020, arXiv 2003.13461): each client answers with a mixture of a model of its own and the shared one.

Client i trains the shared model w by FedAvg, and its own v on the loss of the mixture (section 4, algorithm 1)

    m = a v + (1 - a) w,      v <- v - eta grad_v F_i(m),      a <- a - eta <v - w, grad F_i(m)>   (equation 10)

whose gradient does not reach w; m of the trained v and w answers, and v goes on from itself. Both see the same batches; a is adapted in each step
and kept in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.errors import SettingsError
from fedali.methods.base import Method, check_at_least
from fedali.slots import Descent, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended


@dataclass(frozen=True)
class APFL(Method):
    """FedAvg, and a personal model whose mixture with the shared one is what is trained and what answers.

    Args:
        alpha: a, share of the personal model: for good, or at the start.
        adaptive: whether each client learns its own.
        alpha_rate: eta of a, in each step; the models have the recipe's optimizer. As in the paper's experiments.
    """

    name: ClassVar[str] = "apfl"
    summary: ClassVar[str] = "FedAvg, and a personal model that answers mixed with the shared one"
    answer_slot: ClassVar[str] = "mixture"

    alpha: float = 0.5
    adaptive: bool = False
    alpha_rate: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(0, alpha=self.alpha, alpha_rate=self.alpha_rate)
        if self.alpha > 1:
            raise SettingsError(f"alpha is {self.alpha!r}, it has to be a number from 0 to 1")
        if not isinstance(self.adaptive, bool):
            raise SettingsError(f"adaptive is {self.adaptive!r}, it has to be true or false")

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The personal model, the mixture, and a where it is learnt."""
        descent = Descent(self.alpha_rate, 0.0, 1.0)
        learnt = Slot("alpha", "kept", (1,), starts=self.alpha, trained=True, descent=descent)
        models = (
            Slot("personal", "kept", starts="model", trained=True),
            Slot("mixture", "kept", starts="model"),
        )
        return (*models, learnt) if self.adaptive else models

    def objective(self, step: ClientStep) -> Tensor:
        """The shared model's loss, and the mixture's."""
        shared = {name: value.detach() for name, value in step.own.model.items()}
        alpha = step.own["alpha"] if self.adaptive else self.alpha
        return step.loss() + step.loss(step.forward(_mixture(alpha, step.own["personal"], shared)))

    def finish(self, end: Ended) -> Mapping[str, Mapping[str, Tensor]]:
        """The mixture of both as they are now."""
        alpha = end.own["alpha"] if self.adaptive else self.alpha
        return {"mixture": _mixture(alpha, end.own["personal"], end.own.model)}


def _mixture(
    alpha: Tensor | float, personal: Mapping[str, Tensor], shared: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {name: alpha * value + (1 - alpha) * shared[name] for name, value in personal.items()}
