"""Local training, the floor every federated method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method


@dataclass(frozen=True)
class Local(Method):
    """Nothing is shared: each client trains alone, round after round."""

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "no federation: each client trains alone"

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Every parameter."""
        return ("*",)
