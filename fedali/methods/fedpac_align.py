"""The feature alignment of FedPAC (Xu et al., ICLR 2023, arXiv 2306.11867), without its combination of classifiers.

A shared body, a head of each client's own. In a round a client trains its head on the body it was sent, for an epoch beyond those of the
training as in the authors' code, then the body under that head, whose embeddings are drawn to the mean embeddings of their classes over all
clients (section 3.3, algorithm 1): FedProto's prototypes.

FedPAC then gives each client a mixture of all clients' heads, whose weights solve a quadratic program of every client's class means and variances.
For that a server sees each client's head and statistics by themselves, and answers each client with something else; here it sees sums,
and sends all the same. So that half is not here, and the name says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedali.methods.base import check_count
from fedali.methods.fedproto import FedProto
from fedali.slots import Phase


@dataclass(frozen=True)
class FedPACAlign(FedProto):
    """A personal head, then a shared body whose embeddings are drawn to the mean embeddings of classes.

    Args:
        strength: lambda, weight of the pull.
        head_epochs: of the head in each round, beyond those of the training, which are the body's.
    """

    name: ClassVar[str] = "fedpac-align"
    summary: ClassVar[str] = (
        "FedPAC's feature alignment alone: shared body drawn to class means, personal head"
    )

    head_epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(1, head_epochs=self.head_epochs)

    @property
    def extra_epochs(self) -> int:
        """Those of the head."""
        return self.head_epochs

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """The head."""
        return ("head.*",)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The head alone, then the body alone."""
        return Phase(("head.*",), epochs=self.head_epochs), Phase(("!head.*",))
