"""FedBABU (Oh et al., ICLR 2022, arXiv 2106.06042): the body alone is learnt in federation, under a head that nobody trains.

In a round clients train the body under the head as it was initialised, and the server averages bodies (algorithm 1). For its own use a
client fine-tunes the model for some epochs: that is what it answers with, and it is not sent. When: see ``fedali.methods.fedavg_tuned``,
which this is but for the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.fedavg_tuned import FedAvgTuned


@dataclass(frozen=True)
class FedBABU(FedAvgTuned):
    """A shared body under a head that stays as it was made; fine-tuned for the answer."""

    name: ClassVar[str] = "fedbabu"
    summary: ClassVar[str] = (
        "shared body under a head that nobody trains; fine-tuned for the answer, with more epochs"
    )
    federated: ClassVar[tuple[str, ...]] = ("!head.*", "!personal/*")
