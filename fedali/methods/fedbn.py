"""FedBN (Li et al., ICLR 2021, arXiv 2102.07623): each client has its own normalisation layers; the rest is averaged.

The paper's are batch norms, whose statistics stay as well. The models here have group and layer norms, which keep no statistics: their
scales and shifts stay with the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.errors import SettingsError
from fedali.methods.base import Method


@dataclass(frozen=True)
class FedBN(Method):
    """FedAvg of everything but normalisation layers.

    Args:
        norms: glob patterns of their parameters. The default finds those of cnn1d, cnn2d and hart; mlp's are like
            ``["body.3.*", "body.6.*"]``.
    """

    name: ClassVar[str] = "fedbn"
    summary: ClassVar[str] = "FedAvg whose normalisation layers stay on the client"

    norms: tuple[str, ...] = ("*norm*",)

    def __post_init__(self) -> None:
        given = self.norms
        if not isinstance(given, list | tuple) or not given or not all(isinstance(p, str) for p in given):
            raise SettingsError(f"norms is {given!r}, it has to be a list of patterns of parameters' names")
        object.__setattr__(self, "norms", tuple(given))

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Scales and shifts of normalisation layers."""
        return self.norms
