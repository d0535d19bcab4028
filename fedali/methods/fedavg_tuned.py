"""FedAvg whose clients fine-tune the model that they send, and answer with that; what they send is from before.

The baseline that personalised methods are held against most often (Yu et al., arXiv 2002.04758; Cheng et al., arXiv 2108.07313: "FedAvg
with fine-tuning"), and the control of those that fine-tune themselves. Fine-tuning is once at the end there. Here a client does it in
each round that it takes part in, so that its answer is known all along, with epochs beyond those of the training and a fresh
optimizer; of what was fine-tuned nothing reaches the next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fedali.methods.base import Method, check_choices, check_count
from fedali.slots import Phase, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Started


@dataclass(frozen=True)
class FedAvgTuned(Method):
    """FedAvg, and for the answer some epochs more.

    Args:
        fine_tuning: epochs of it in each round, beyond those of the training.
        tunes: what it trains: ``"all"`` of the model, or its ``"head"``, or its ``"body"``.
    """

    name: ClassVar[str] = "fedavg-tuned"
    summary: ClassVar[str] = "FedAvg, fine-tuned for the answer, with more epochs"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("personal", "kept", starts="model", trained=True),)
    answer_slot: ClassVar[str] = "personal"
    federated: ClassVar[tuple[str, ...]] = ("!personal/*",)
    """What trains before it is sent."""

    fine_tuning: int = 5
    tunes: Literal["all", "head", "body"] = "all"

    def __post_init__(self) -> None:
        check_choices(self)
        check_count(1, fine_tuning=self.fine_tuning)

    @property
    def extra_epochs(self) -> int:
        """Those of the fine-tuning."""
        return self.fine_tuning

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What is sent, then what answers."""
        tuned = {
            "all": ("personal/*",),
            "head": ("personal/head.*",),
            "body": ("personal/*", "!personal/head.*"),
        }
        return Phase(self.federated), Phase(tuned[self.tunes], epochs=self.fine_tuning)

    def begin(self, start: Started) -> Mapping[str, Mapping[str, Tensor]]:
        """Fine-tuning starts from the model as it is sent."""
        return {"personal": start.own.model} if start.phase else {}

    def objective(self, step: ClientStep) -> Tensor:
        """Both models' losses; each phase moves one."""
        return step.loss() + step.loss(step.forward(step.own["personal"]))
