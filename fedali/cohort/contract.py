"""The contract between the server's strategy and a site.

A site is one Flower node that answers for one or many clients. It trains and evaluates them, aligns and sums what
they upload, and replies with sums and per-client metrics: never with a client's own weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from fedali.cohort.weights import Weights
from fedali.uploads import SharedState, Upload

ClientMetrics = dict[str, list[float]]


@dataclass(frozen=True)
class RoundSettings:
    """What a round may change.

    Args:
        round: its number: 1, 2, ...
        generalisation: whether sites should evaluate generalisation.
        influence: of the prototypes in this round. A site that has the method computes it itself; one that hands the round to
            devices has no method, and passes this on.
        weights: that clients may have at most, where they say themselves how many samples they have.
    """

    round: int
    generalisation: bool = True
    influence: float = 0.0
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True)
class SiteReply:
    """What a site sends back.

    Args:
        metrics: by name, one number for each of the site's clients that took part; ``client`` holds their ids.
        upload: what all the clients send, together; None after an evaluation.
        reports: what became of each device, where the clients are devices: ``site``, ``device``, ``number``, ``state``
            ("done", "late", "declined", "refused", "offline"), ``reason``, ``seconds``, ``sent`` and ``received`` in bytes,
            ``samples`` that it says it has, ``weight`` that it counted as, and ``metrics``.
    """

    metrics: ClientMetrics = field(default_factory=dict)
    upload: Upload | None = None
    reports: tuple[dict[str, Any], ...] = ()


class Site(Protocol):
    """One or many clients behind one node."""

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """Train the clients of this round from ``shared``, evaluate their personal models, sum their uploads."""
        ...

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """Evaluate the server's model on every client's data."""
        ...
