"""A task of one's own: not the mean but a quantile of what is measured, by the pinball loss.

    python examples/own_task.py

It subclasses the task whose kind of targets it has; the loss becomes part of the one step, on every engine and on devices. A scenario
file names it as ``task = "own_task:Quantile"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from regression import write_data

from fedali.tasks import Regression
from fedali_simulations import simulate

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.task import Batch


@dataclass(frozen=True)
class Quantile(Regression):
    """What a share of the samples stays below."""

    name: ClassVar[str] = "quantile"
    share: float = 0.9

    def losses(self, output: Output, batch: Batch) -> Tensor:
        """The pinball loss of each sample [B], a mean over targets."""
        above = batch.y - output.logits
        return (self.share * above.clamp(min=0) + (1 - self.share) * (-above).clamp(min=0)).mean(-1)


def main(rounds: int = 10) -> None:
    """Train it."""
    write_data(Path("diabetes.npz"))
    results = simulate(
        {
            "methods": ["fedavg"],
            "data": {"source": "diabetes.npz"},
            "task": {"name": "own_task:Quantile", "options": {"share": 0.9, "units": ["points"]}},
            "model": {"name": "mlp", "options": {"hidden": [32]}},
            "split": {"order": "random"},
            "training": {"rounds": rounds, "batch_size": 16, "learning_rate": 0.003, "engine": "loop"},
        },
        workers=1,
    )
    print(results.targets.to_string(index=False))


if __name__ == "__main__":
    main()
