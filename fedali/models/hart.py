"""HART, the human activity recognition transformer the paper evaluates (Ek et al., arXiv 2209.11750).

Each block splits its tokens by sensor: attention over the accelerometer's quarter, attention over the gyroscope's
quarter, light convolution over the half in between. Differences from the official code: the light convolution is
one (see ``LightConvolution``), and nothing is dropped at random, since the local step is a pure function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.alp import Alignment, ALPLayer
from fedali.errors import SettingsError
from fedali.models.base import ALPSettings, Model


class SensorAttention(nn.Module):
    """Multi-head self-attention whose heads are as wide as its input (Keras' ``key_dim``): [B, T, w] -> [B, T, w]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * heads * width)
        self.output = nn.Linear(heads * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over tokens."""
        batch, tokens, width = x.shape
        parts = self.query_key_value(x).reshape(batch, tokens, 3, self.heads, width).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        attention = torch.softmax(query @ key.transpose(-1, -2) * width**-0.5, -1)
        mixed: Tensor = self.output((attention @ value).transpose(1, 2).reshape(batch, tokens, -1))
        return mixed


class LightConvolution(nn.Module):
    """Depthwise convolution over tokens whose taps are softmaxed and shared by the channels of a head (Wu et al. 2019).

    The official code reshapes [B, T, w] to [*, heads, T] without transposing, which mixes the samples of a batch, and
    overwrites its kernels by their softmax in every training pass. Here channel c belongs to head ``c * heads // w``
    and the softmax is part of the forward pass.
    """

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.width, self.kernel = width, kernel
        self.taps = nn.Parameter(torch.empty(heads, kernel))
        nn.init.uniform_(
            self.taps, -((3 / kernel) ** 0.5), (3 / kernel) ** 0.5
        )  # Glorot, fans as in the official code

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, T, w] over T, same length."""
        tokens = x.shape[1]
        taps = torch.softmax(self.taps, -1)
        # Taps beyond the sequence meet only zero padding: gather the [T, T] band of each head and multiply once.
        offset = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None] + (self.kernel - 1) // 2
        inside = ((offset >= 0) & (offset < self.kernel)).to(x.dtype).to(x.device)
        band = taps[:, offset.clamp(0, self.kernel - 1).to(x.device)] * inside  # [heads, T out, T in]
        per_head = x.reshape(x.shape[0], tokens, taps.shape[0], -1).permute(0, 2, 1, 3)
        return (band @ per_head).permute(0, 2, 1, 3).reshape(x.shape)


class Block(nn.Module):
    """LayerNorm, ALP, three branches side by side, residual; LayerNorm, MLP, residual."""

    def __init__(self, dim: int, heads: int, light_heads: int, kernel: int, alp: ALPLayer | None) -> None:
        super().__init__()
        self.quarter = dim // 4
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.alp = alp
        self.accelerometer = SensorAttention(dim // 4, heads)
        self.light = LightConvolution(dim // 2, light_heads, kernel)
        self.gyroscope = SensorAttention(dim // 4, heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_in = nn.Linear(dim, 2 * dim)
        self.mlp_out = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Tokens [B, T, d] -> [B, T, d]."""
        z = self.norm(x)
        if self.alp is not None:
            z = self.alp(z, alignment)
        # Split, not sliced: its gradient is one concatenation, where slices are padded with zeros and added.
        accelerometer, both, gyroscope = z.split((self.quarter, 2 * self.quarter, self.quarter), -1)
        branches = (self.accelerometer(accelerometer), self.light(both), self.gyroscope(gyroscope))
        x = x + torch.cat(branches, -1)
        mixed: Tensor = self.mlp_out(F.silu(self.mlp_in(self.mlp_norm(x))))
        return x + mixed


class HART(Model):
    """Patches of accelerometer and gyroscope, six blocks, mean over tokens, a hidden layer and the classes.

    Args:
        input_shape: (samples, 6): three accelerometer channels, then three of the gyroscope.
        classes: number of classes.
        alp: settings of the ALP layers, one in each block after its first LayerNorm; None for none.
        dim: d of a token.
        patch: samples a token covers.
        heads: of each attention.
        light_heads: of each light convolution.
        kernels: taps of each block's light convolution; their number is the number of blocks.
        hidden: width of the head's hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        alp: ALPSettings | None = None,
        *,
        dim: int = 192,
        patch: int = 16,
        heads: int = 3,
        light_heads: int = 4,
        kernels: Sequence[int] = (3, 7, 15, 31, 31, 31),
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        samples, channels = input_shape
        if channels != 6 or samples % patch or dim % (4 * light_heads):
            raise SettingsError(
                f"hart takes windows of 6 channels (accelerometer, gyroscope) whose length is a multiple of {patch}; "
                f"got {samples} samples of {channels} channels. For other data use cnn1d"
            )
        self.patch = patch
        self.accelerometer_patches = nn.Linear(3 * patch, dim // 2)
        self.gyroscope_patches = nn.Linear(3 * patch, dim // 2)
        self.position = nn.Parameter(torch.empty(samples // patch, dim).uniform_(-0.05, 0.05))
        layers = [None] * len(kernels) if alp is None else alp.layers((dim,) * len(kernels))
        self.blocks = nn.ModuleList(
            Block(dim, heads, light_heads, kernel, layer)
            for kernel, layer in zip(kernels, layers, strict=True)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, classes))
        self._initialise()

    def _initialise(self) -> None:
        """Glorot with the fans that Keras computes for the official model's kernels; biases 0."""
        patches = (self.accelerometer_patches, self.gyroscope_patches)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                outputs, inputs = module.weight.shape
                if module in patches:  # a convolution of kernel 16: its fan-out counts the taps
                    outputs *= self.patch
                elif name.endswith("query_key_value"):  # [w, heads, w] in Keras
                    inputs, outputs = outputs // 3, inputs * inputs
                elif name.endswith(".output"):  # [heads, w, w]
                    outputs = inputs
                limit = (6 / (inputs + outputs)) ** 0.5
                nn.init.uniform_(module.weight, -limit, limit)
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of windows [B, samples, 6]."""
        batch, samples, _ = x.shape
        patches = x.reshape(batch, samples // self.patch, self.patch, 6)
        accelerometer = self.accelerometer_patches(patches[..., :3].flatten(2))
        gyroscope = self.gyroscope_patches(patches[..., 3:].flatten(2))
        z = torch.cat([accelerometer, gyroscope], -1) + self.position
        for block in self.blocks:
            z = block(z, alignment)
        pooled: Tensor = self.norm(z).mean(1)
        return pooled
