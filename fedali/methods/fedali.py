"""FedAli: prototypes, aligned by optimal transport, say for each sample whose model answers.

The paper's method (Ek et al., arXiv 2411.10595) is ``fedali.methods.fedali_paper``: its prototypes pull embeddings in a layer. Here they
decide instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fedali.answers import Answer
from fedali.methods.base import Method


@dataclass(frozen=True)
class FedAli(Method):
    """Weights are averaged; a client's own model answers for samples of its own kind, and the shared one for others.

    A client's local prototypes are the centres of its training embeddings. Aligned by optimal transport and averaged they are the
    global ones. Whether a sample is nearer to the local or to the global ones decides who answers, see ``fedali.answers.gate``.
    """

    name: ClassVar[str] = "fedali"
    summary: ClassVar[str] = (
        "weights averaged; prototypes aligned by optimal transport decide whose model answers a sample"
    )

    answer: Answer = field(default="gate", kw_only=True)
