"""FedPer (Arivazhagan et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method


@dataclass(frozen=True)
class FedPer(Method):
    """The body is shared and averaged, the head stays on the client; both train together."""

    name: ClassVar[str] = "fedper"
    summary: ClassVar[str] = "shared body, personal head"

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """The head."""
        return ("head.*",)
