"""What is asked of the drawing of a round's clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["uniform", "size", "loss", "availability"]

DAY_NIGHT = "day-night"  # the availability that is generated


@dataclass(frozen=True)
class Sampling:
    """How the clients of a round are drawn; docs/sampling.md says what follows.

    Args:
        kind: ``"uniform"``; ``"size"``: by their number of training samples; ``"loss"``: Power-of-Choice; ``"availability"``: uniform over
            those who are on.
        candidates: of ``"loss"``: how many are drawn by size, of which those with the highest loss train; 0: twice as many as train.
        dropout: probability that a client that was chosen never reports.
        availability: ``""``: everybody is always on; ``"day-night"``; or the path of a trace.
        round_hours: how long a round lasts, for what is told in hours.
        night_share: of the clients, who are on in a round of their night.
        day_share: the same by day.
        zones: time zones, evenly over the day.
    """

    kind: Kind = "uniform"
    candidates: int = 0
    dropout: float = 0.0
    availability: str = ""
    round_hours: float = 1.0
    night_share: float = 0.9
    day_share: float = 0.1
    zones: int = 1

    @property
    def who_is_on(self) -> str:
        """``availability``, which the kind of that name has without being told."""
        return self.availability or (DAY_NIGHT if self.kind == "availability" else "")
