"""A multilayer perceptron over flattened samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from fedali.alp import Alignment
from fedali.models.base import ALPSettings, Model


class MLP(Model):
    """Linear layers with GELU and LayerNorm; one ALP layer before the head.

    Args:
        input_shape: shape of one sample, flattened.
        classes: number of classes.
        alp: settings of the ALP layer, None for none.
        hidden: widths; the last is the embedding's d.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        alp: ALPSettings | None = None,
        *,
        hidden: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.body = nn.Sequential(nn.Flatten())
        for before, after in itertools.pairwise(widths):
            self.body.extend([nn.Linear(before, after), nn.GELU(), nn.LayerNorm(after)])
        self.alp = None if alp is None else alp.layers((widths[-1],))[0]
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of samples [B, *input_shape]."""
        z: Tensor = self.body(x)
        return z if self.alp is None else self.alp(z, alignment)
