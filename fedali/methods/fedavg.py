"""FedAvg (McMahan et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method


@dataclass(frozen=True)
class FedAvg(Method):
    """Everything is shared; the server averages the clients' weights by their number of samples."""

    name: ClassVar[str] = "fedavg"
    summary: ClassVar[str] = "one model for all: weights averaged by number of samples"
