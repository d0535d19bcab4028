"""FedRep (Collins et al., ICML 2021, arXiv 2102.07078): a shared representation, and a head of each client's own.

In a round a client first trains its head on the representation it was sent, then the representation under that head
(algorithm 1); the server averages representations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method, check_at_least
from fedali.slots import Phase


@dataclass(frozen=True)
class FedRep(Method):
    """A personal head and a shared body, trained one after the other.

    Args:
        body_epochs: of a round's epochs, the last: those that train the body. The head has the others.
    """

    name: ClassVar[str] = "fedrep"
    summary: ClassVar[str] = "shared body, personal head; the head trains first, then the body"

    body_epochs: int = 1

    def __post_init__(self) -> None:
        check_at_least(1, body_epochs=self.body_epochs)

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """The head."""
        return ("head.*",)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The head alone, then the body alone."""
        return Phase(("head.*",)), Phase(("!head.*",), epochs=self.body_epochs)
