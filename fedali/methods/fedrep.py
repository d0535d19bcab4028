"""FedRep (Collins et al., ICML 2021, arXiv 2102.07078): a shared representation, and a head of each client's own.

In a round a client first trains its head on the representation it was sent, then the representation under that head
(algorithm 1); the server averages representations. In the authors' scripts the representation has as many epochs as FedAvg's
clients train, 1 or 5, and the head has 10 more. So it is here: the body trains for all of a training's epochs, the head for some beyond
them, one unless it is told otherwise (validation of digits, seeds 5 and 6, own and everyone's: 85.2 / 60.7, 78.4 / 49.7, 75.4 / 45.5 % for 1, 5, 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import Method, check_count
from fedali.slots import Phase


@dataclass(frozen=True)
class FedRep(Method):
    """A personal head and a shared body, trained one after the other.

    Args:
        head_epochs: of the head in each round, beyond those of the training, which are the body's.
        body_epochs: for both to share the training's epochs, so that no budget is larger: these last ones are the body's, the others the
            head's. 0 where they do not.
    """

    name: ClassVar[str] = "fedrep"
    summary: ClassVar[str] = "shared body, personal head; the head trains first, then the body"

    head_epochs: int = 1
    body_epochs: int = 0

    def __post_init__(self) -> None:
        check_count(1, head_epochs=self.head_epochs)
        check_count(0, body_epochs=self.body_epochs)

    @property
    def extra_epochs(self) -> int:
        """Those of the head, unless it shares the body's."""
        return 0 if self.body_epochs else self.head_epochs

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """The head."""
        return ("head.*",)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The head alone, then the body alone."""
        head, body = (None, self.body_epochs) if self.body_epochs else (self.head_epochs, None)
        return Phase(("head.*",), epochs=head), Phase(("!head.*",), epochs=body)
