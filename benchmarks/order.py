"""What the parent asks of one contender's process, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import RoundClock


@dataclass(frozen=True)
class Order:
    """One run of one contender.

    Args:
        contender: its name.
        workload: name of the workload.
        rounds: including the first.
        epochs: of a client update; 0 measures everything but training.
        data: folder with the clients.
        scratch: folder for whatever the contender writes.
        workers: threads or actors.
        started: ``time.monotonic()`` when the process was started.
    """

    contender: str
    workload: str
    rounds: int
    epochs: int
    data: str
    scratch: str
    workers: int
    started: float

    @property
    def data_folder(self) -> Path:
        """Where the clients are."""
        return Path(self.data)


@dataclass(frozen=True)
class Outcome:
    """What a contender measured.

    Args:
        clock: marked around every round.
        final_loss: of the server's model after the last round.
        versions: of what it is made of.
        breakdown: seconds by name for each round, where known.
    """

    clock: RoundClock
    final_loss: float
    versions: dict[str, str]
    breakdown: list[dict[str, float]] | None = None

    def to_json(self, order: Order) -> dict[str, Any]:
        """As it goes to the parent."""
        return {
            "contender": order.contender,
            "workload": order.workload,
            "epochs": order.epochs,
            "rounds": self.clock.rounds(),
            "first_round_done": self.clock.first_round_done - order.started,
            "final_loss": self.final_loss,
            "versions": self.versions,
            "breakdown": self.breakdown,
        }
