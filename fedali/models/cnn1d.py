"""A small convolutional network over windows of sensor data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.alp import Alignment
from fedali.models.base import ALPSettings, Model, groups


class CNN1D(Model):
    """Convolution of stride 2, GroupNorm, GELU, three times; mean over time; LayerNorm; one ALP layer before the head.

    The LayerNorm gives embeddings the scale of fresh prototypes, as in HART, whose ALP layers follow a LayerNorm.

    Args:
        input_shape: (samples, channels) of a window.
        classes: number of classes.
        alp: settings of the ALP layer, None for none.
        channels: output channels of the convolutions; the last is the embedding's d.
        kernel: taps of each convolution.
        hidden: width of the head's hidden layer; 0 for a linear head.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        alp: ALPSettings | None = None,
        *,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 7,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        widths = [input_shape[1], *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2)
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups(width), width) for width in channels)
        self.norm = nn.LayerNorm(widths[-1])
        self.alp = None if alp is None else alp.layers((widths[-1],))[0]
        if hidden:
            self.head = nn.Sequential(nn.Linear(widths[-1], hidden), nn.GELU(), nn.Linear(hidden, classes))
        else:
            self.head = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of windows [B, samples, channels]."""
        z = x.transpose(1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            z = F.gelu(norm(convolution(z)))
        embedding: Tensor = self.norm(z.mean(-1))
        return embedding if self.alp is None else self.alp(embedding, alignment)
