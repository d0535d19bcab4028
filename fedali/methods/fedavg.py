"""FedAvg (McMahan et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method, check_count


@dataclass(frozen=True)
class FedAvg(Method):
    """Everything is shared; the server averages the clients' weights by their number of samples.

    Args:
        extra_epochs: of local training, beyond those that all methods have; what they learn is sent.
    """

    name: ClassVar[str] = "fedavg"
    summary: ClassVar[str] = "one model for all: weights averaged by number of samples"

    extra_epochs: int = 0

    def __post_init__(self) -> None:
        check_count(0, extra_epochs=self.extra_epochs)
