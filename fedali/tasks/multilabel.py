"""Multi-label classification: any of several labels for each sample, each by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedali.errors import SettingsError
from fedali.targets import Kind, Score, Targets
from fedali.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.task import Batch

BALANCED = "balanced"


@dataclass(frozen=True)
class MultiLabel(Task):
    """Binary cross-entropy of a sigmoid for each label, a mean over labels; a label is there where its probability is above a half.

    Args:
        positive_weights: what the loss of a label that is there is multiplied with, a number for each label; ``"balanced"``: samples without it
            by samples with it, of all clients' training samples together, at most 100.
    """

    name: ClassVar[str] = "multi-label"
    summary: ClassVar[str] = (
        "any of several labels: binary cross-entropy; micro- and macro-F1, subset accuracy"
    )
    kind: ClassVar[Kind] = "labels"
    main: ClassVar[Score] = Score("", "micro_f1", "micro-F1")
    beside: ClassVar[tuple[Score, ...]] = (
        Score("_f1", "macro_f1", "macro-F1"),
        Score("_exact", "subset_accuracy", "subset accuracy"),
        Score("_labels", "label_accuracy", "label accuracy"),
    )

    positive_weights: Any = None

    def __post_init__(self) -> None:
        weights = self.positive_weights
        if weights in (None, BALANCED):
            return
        if not isinstance(weights, list | tuple):
            raise SettingsError(
                f'positive_weights is {weights!r}; it has to be "{BALANCED}" or a number for each label'
            )
        for number in weights:
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
                raise SettingsError(f"positive_weights has {number!r}; weights are numbers above 0")
        object.__setattr__(self, "positive_weights", tuple(float(number) for number in weights))

    @property
    def goes_by_counts(self) -> bool:
        """Of balanced weights."""
        return bool(self.positive_weights == BALANCED)

    def fitted(self, targets: Targets) -> MultiLabel:
        """With a weight for each label."""
        weights, names = self.positive_weights, targets.names
        if weights is None:
            return self
        if weights == BALANCED:
            if targets.counts is None or targets.samples is None:
                raise SettingsError(
                    'positive_weights = "balanced" goes by all clients\' training samples, which are not here: give a number for each label'
                )
            there = np.maximum(np.asarray(targets.counts, np.float64), 1)
            ratio = np.clip((targets.samples - there) / there, 0.01, 100)
            weights = tuple(float(f"{value:.6g}") for value in ratio)
        if len(weights) != len(names):
            raise SettingsError(
                f"positive_weights has {len(weights)} numbers for {len(names)} labels: {', '.join(names)}"
            )
        return replace(self, positive_weights=weights)

    def losses(self, output: Output, batch: Batch) -> Tensor:
        """Binary cross-entropy, a mean over labels."""
        import torch.nn.functional as F  # noqa: N812

        there = F.softplus(-output.logits)
        if self.positive_weights is not None:
            there = there * there.new_tensor(self.positive_weights)
        return (batch.y * there + (1 - batch.y) * F.softplus(output.logits)).mean(-1)

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """The mean over samples of the share of labels that are right, times samples."""
        right = (self.predict(output.logits) == (batch.y > 0)).to(batch.weights.dtype)
        found: Tensor = (right.mean(-1) * batch.weights).sum()
        return found
