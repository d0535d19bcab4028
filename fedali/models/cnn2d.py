"""A small convolutional network over images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.alp import Alignment
from fedali.models.base import ALPSettings, Model, groups
from fedali.models.pooling import halve_images


class CNN2D(Model):
    """Convolution, GroupNorm, GELU and a halving, twice; a linear embedding; LayerNorm; one ALP layer before the head.

    Args:
        input_shape: (channels, height, width) of an image.
        classes: number of classes.
        alp: settings of the ALP layer, None for none.
        channels: output channels of the convolutions.
        kernel: width and height of each convolution.
        embedding: d.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        alp: ALPSettings | None = None,
        *,
        channels: Sequence[int] = (32, 64),
        kernel: int = 5,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        widths = [input_shape[0], *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups(width), width) for width in channels)
        height, width = input_shape[1], input_shape[2]
        for _ in channels:
            height, width = max(1, height // 2), max(1, width // 2)
        self.embed = nn.Linear(widths[-1] * height * width, embedding)
        self.norm = nn.LayerNorm(embedding)
        self.alp = None if alp is None else alp.layers((embedding,))[0]
        self.head = nn.Linear(embedding, classes)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of images [B, channels, height, width]."""
        z = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            z = F.gelu(norm(convolution(z)))
            z = halve_images(z)
        embedding: Tensor = self.norm(F.gelu(self.embed(z.flatten(1))))
        return embedding if self.alp is None else self.alp(embedding, alignment)
