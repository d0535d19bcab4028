"""What a task is: what is known of samples, what is minimised, and how good answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedali.errors import SettingsError
from fedali.targets import Array, Kind, Score, Targets, counts, decided, predicted, scores, shares

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.task import Batch


@dataclass(frozen=True)
class Task:
    """Base of all tasks: a frozen dataclass whose fields are its options.

    A task of one's own subclasses the one that knows its ``kind`` of targets, and is used by ``"module:Class"``::

        @dataclass(frozen=True)
        class LogCosh(Regression):
            name: ClassVar[str] = "log-cosh"

            def losses(self, output: Output, batch: Batch) -> Tensor:
                return (output.logits - batch.y).cosh().log().mean(1)

    ``losses`` and ``correct`` are torch, pure, and become part of the captured graphs: they must not write in place, nor branch on values.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    kind: ClassVar[Kind] = "classes"
    main: ClassVar[Score]
    """What ``scores`` gives as ``name`` itself: it chooses rounds, and stands in tables."""
    beside: ClassVar[tuple[Score, ...]] = ()
    """What ``scores`` gives besides, of all targets together."""
    train_name: ClassVar[str] = "train_accuracy"
    """What the mean of ``correct`` over an epoch is called in metrics."""

    @property
    def goes_by_counts(self) -> bool:
        """Whether ``fitted`` needs ``Targets.counts``, of all clients' training samples together."""
        return False

    def fitted(self, targets: Targets) -> Task:
        """The task for some data: options that depend on them are made out.

        Raises ``SettingsError`` for options that do not fit.
        """
        return self

    def losses(self, output: Output, batch: Batch) -> Tensor:
        """The loss of each sample [B]."""
        raise NotImplementedError

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Weighted mean over the batch, 0-d; 0 for a batch of padding alone."""
        losses = self.losses(output, batch)
        return (losses * batch.weights).sum() / batch.weights.sum().clamp(min=1.0)

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """What is counted while training, a weighted sum over the batch, 0-d: right predictions."""
        raise NotImplementedError

    def predict(self, logits: Any) -> Any:
        """What a model says of samples, from its outputs [n, T], of torch or numpy."""
        return predicted(self.kind, logits)

    def shares(self, logits: Array) -> Array:
        """What two models' answers are mixed of, from outputs [n, T]: probabilities, or the numbers themselves."""
        return shares(self.kind, logits)

    def decide(self, mixed: Array) -> Array:
        """``predict`` of what was mixed."""
        return decided(self.kind, mixed)

    def scores(self, name: str, y: Array, said: Array, targets: Targets) -> Mapping[str, float]:
        """Metrics of what was ``said`` of samples with ``y``, named after ``name``; NaN for no samples."""
        return scores(name, y, said, targets)

    def better(self, value: float) -> float:
        """A value of ``main`` as a number of which more is better."""
        return value if self.main.better == "more" else -value

    def blank(self, x: Tensor, outputs: int) -> Tensor:
        """Zeros as y of samples x [B, *shape]: classes [B], or targets [B, T] of ``outputs``."""
        import torch

        if self.kind == "classes":
            return torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return x.new_zeros(len(x), outputs)

    def counts(self, y: Array, outputs: int) -> Array:
        """What ``Method.begin`` sees of a client's training samples [T]: see ``fedali.targets.counts``."""
        return counts(self.kind, y, outputs)

    def need_classes(self, who: str) -> None:
        """Raise ``SettingsError`` where samples have no class of several, and ``who`` goes by classes."""
        if self.kind != "classes":
            raise SettingsError(
                f"{who} goes by classes, and task {self.name!r} has none: choose another method"
            )
