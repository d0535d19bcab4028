"""Classification: one class of several for each sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedali.errors import SettingsError, did_you_mean
from fedali.targets import Score, Targets
from fedali.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.task import Batch

BALANCED = "balanced"


@dataclass(frozen=True)
class Classification(Task):
    """Cross-entropy; accuracy and macro-F1.

    Args:
        class_weights: of each class in the loss, a number each in the order of the classes, or by name, 1 for those without one;
            ``"balanced"``: ``n / (classes * n_c)``, of all clients' training samples together. A batch's loss is the weighted mean.
        label_smoothing: share of the target that is spread evenly over all classes, from 0 to less than 1 (Szegedy et al., CVPR 2016).
    """

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "one class of several: cross-entropy; accuracy, macro-F1"
    main: ClassVar[Score] = Score("", "accuracy", "accuracy")
    beside: ClassVar[tuple[Score, ...]] = (Score("_f1", "macro_f1", "macro-F1"),)

    class_weights: Any = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        smooth = self.label_smoothing
        if isinstance(smooth, bool) or not isinstance(smooth, int | float) or not 0 <= smooth < 1:
            raise SettingsError(f"label_smoothing is {smooth!r}, it has to be a number from 0 to less than 1")
        weights = self.class_weights
        if isinstance(weights, Mapping):
            object.__setattr__(self, "class_weights", dict(weights))
            numbers = list(weights.values())
        elif isinstance(weights, list | tuple):
            object.__setattr__(self, "class_weights", tuple(weights))
            numbers = list(weights)
        elif weights in (None, BALANCED):
            return
        else:
            raise SettingsError(
                f'class_weights is {weights!r}; it has to be "{BALANCED}", a number for each class, or numbers by name'
            )
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise SettingsError(f"class_weights has {number!r}; weights are numbers of at least 0")
        if not any(number > 0 for number in numbers):
            raise SettingsError("class_weights are all 0; one has to be more")

    @property
    def goes_by_counts(self) -> bool:
        """Of balanced weights."""
        return bool(self.class_weights == BALANCED)

    def fitted(self, targets: Targets) -> Classification:
        """With a weight for each class."""
        weights, names = self.class_weights, targets.names
        if weights is None:
            return self
        if weights == BALANCED:
            if targets.counts is None:
                raise SettingsError(
                    'class_weights = "balanced" goes by all clients\' training samples, which are not here: give a number for each class'
                )
            counts = np.maximum(np.asarray(targets.counts, np.float64), 1)
            weights = tuple(float(f"{value:.6g}") for value in counts.sum() / (len(counts) * counts))
        elif isinstance(weights, Mapping):
            for name in weights:
                if name not in names:
                    raise SettingsError(f"class_weights has {name!r}; {did_you_mean(name, names)}")
            weights = tuple(float(weights.get(name, 1.0)) for name in names)
        if len(weights) != len(names):
            raise SettingsError(
                f"class_weights has {len(weights)} numbers for {len(names)} classes: {', '.join(names)}"
            )
        return replace(self, class_weights=tuple(float(weight) for weight in weights))

    def losses(self, output: Output, batch: Batch) -> Tensor:
        """Cross-entropy, of smoothed labels where that is asked for."""
        import torch.nn.functional as F  # noqa: N812

        if not self.label_smoothing:
            return F.cross_entropy(output.logits, batch.y, reduction="none")
        logs = output.logits.log_softmax(-1)
        true = -logs.gather(1, batch.y[:, None])[:, 0]
        return (1 - self.label_smoothing) * true - self.label_smoothing * logs.mean(-1)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The mean over the batch, by the weights of samples and of classes."""
        if self.class_weights is None:
            return super().loss(output, batch)
        logs = output.logits.log_softmax(-1)
        of_class = logs.new_tensor(self.class_weights)
        mine, smooth = of_class[batch.y], self.label_smoothing
        losses = -logs.gather(1, batch.y[:, None])[:, 0] * mine
        if smooth:
            losses = (1 - smooth) * losses - smooth * (logs * of_class).mean(-1)
        total = (mine * batch.weights).sum()
        return (losses * batch.weights).sum() / total.clamp(min=min(w for w in self.class_weights if w > 0))

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """Samples whose largest logit is their label's."""
        right = (self.predict(output.logits) == batch.y).to(batch.weights.dtype)
        found: Tensor = (right * batch.weights).sum()
        return found


CLASSIFICATION = Classification()
