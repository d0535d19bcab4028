"""What is learnt: the loss, what counts as correct, the scores, what a prediction looks like.

Classification is the one task there is; nothing else in FedAli knows what a label means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedali.metrics import accuracy, macro_f1
from fedali.models.base import Output


class Batch(NamedTuple):
    """Samples x [B, *shape], labels y [B] and weights [B]; weight 0 marks padding, so that B may be fixed."""

    x: Tensor
    y: Tensor
    weights: Tensor


class Task(Protocol):
    """A task of supervised learning."""

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Weighted mean over the batch, 0-d; 0 for a batch of padding alone."""
        ...

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """Weighted number of right predictions, 0-d."""
        ...

    def predict(self, logits: Tensor) -> Tensor:
        """What a model says of samples, from its logits [B, classes]."""
        ...

    def scores(
        self, name: str, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
    ) -> Mapping[str, float]:
        """Metrics of predictions, named after ``name``."""
        ...


class Classification:
    """One class of several for each sample: cross-entropy, accuracy, macro-F1."""

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Weighted mean cross-entropy."""
        losses = F.cross_entropy(output.logits, batch.y, reduction="none")
        return (losses * batch.weights).sum() / batch.weights.sum().clamp(min=1.0)

    def correct(self, output: Output, batch: Batch) -> Tensor:
        """Samples whose largest logit is their label's."""
        right = (self.predict(output.logits) == batch.y).to(batch.weights.dtype)
        return (right * batch.weights).sum()

    def predict(self, logits: Tensor) -> Tensor:
        """The index of the class [B]."""
        return logits.argmax(-1)

    def scores(
        self, name: str, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
    ) -> Mapping[str, float]:
        """Accuracy as ``name``, macro-F1 as ``<name>_f1``, both 0..1."""
        return {name: accuracy(labels, predicted), f"{name}_f1": macro_f1(labels, predicted, classes)}


CLASSIFICATION = Classification()
