"""FedBABU (Oh et al., ICLR 2022, arXiv 2106.06042): the body alone is learnt in federation, under a head that nobody trains.

In a round clients train the body under the head as it was initialised, and the server averages bodies (algorithm 1). For its own use a
client fine-tunes the model for some epochs: that is what it answers with, and it is not sent.

The paper fine-tunes once, at the end. Here a client does it in each round it takes part in, so that its answer is known all along, with
epochs beyond those of the training; of what was fine-tuned nothing reaches the next round.
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
class FedBABU(Method):
    """A shared body under a head that stays as it was made; fine-tuned for the answer.

    Args:
        fine_tuning: epochs of it in each round, beyond those of the training.
        tunes: what it trains: ``"all"`` of the model, or its ``"head"``, or its ``"body"``.
    """

    name: ClassVar[str] = "fedbabu"
    summary: ClassVar[str] = (
        "shared body under a head that nobody trains; fine-tuned for the answer, with more epochs"
    )
    slots: ClassVar[tuple[Slot, ...]] = (Slot("personal", "kept", starts="model", trained=True),)
    answer_slot: ClassVar[str] = "personal"

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
        """The body that is shared, then what answers."""
        tuned = {
            "all": ("personal/*",),
            "head": ("personal/head.*",),
            "body": ("personal/*", "!personal/head.*"),
        }
        return Phase(("!head.*", "!personal/*")), Phase(tuned[self.tunes], epochs=self.fine_tuning)

    def begin(self, start: Started) -> Mapping[str, Mapping[str, Tensor]]:
        """Fine-tuning starts from the model as it is sent."""
        return {"personal": start.own.model} if start.phase else {}

    def objective(self, step: ClientStep) -> Tensor:
        """Both models' losses; each phase moves one."""
        return step.loss() + step.loss(step.forward(step.own["personal"]))
