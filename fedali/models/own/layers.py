"""Layers that stand for those that keep a state of their own, draw random numbers, or write in place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fedali.models.own.recurrent import Unrolled

BatchNorm = Literal["groups", "frozen"]
_LEAST = 16  # values that a group is normalised over, where there are as many
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_DROPOUTS = (nn.modules.dropout._DropoutNd,)
# By torch's one kernel for inference, which can be neither captured nor stacked, they go where they do not train.
_KEEP_TRAINING = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by statistics that no longer change; scale and shift are parameters as ever."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: nn.modules.batchnorm._NormBase) -> None:
        super().__init__()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.eps = layer.eps
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x [B, channels, ...]."""
        factor = torch.rsqrt(self.running_var + self.eps)
        if self.weight is not None:
            factor = factor * self.weight
        summand = -self.running_mean * factor
        if self.bias is not None:
            summand = summand + self.bias
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * factor.reshape(shape) + summand.reshape(shape)


def replace(net: nn.Module, path: str, new: nn.Module) -> None:
    """Put a module in the place of the one at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)


def make_plain(net: nn.Module) -> dict[str, int]:
    """Make a network pure, but for batch normalisation: how many layers of which kind there were.

    Recurrent layers are unrolled; instance normalisation is by groups of one channel, which is the same; activations do
    not write in place; the network is as after ``eval()``, so that dropout is off.
    """
    counts = {"dropout": 0, "recurrent": 0, "in place": 0}
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.RNNBase):
            counts["recurrent"] += 1
            replace(net, path, Unrolled(module))
        elif isinstance(module, _INSTANCE_NORMS) and not module.track_running_stats:
            replace(net, path, _grouped(module, module.num_features))
        elif isinstance(module, _DROPOUTS):
            counts["dropout"] += module.p > 0
        elif getattr(module, "inplace", False) is True:
            counts["in place"] += 1
            module.inplace = False
    net.eval()
    for module in net.modules():
        if isinstance(module, _KEEP_TRAINING):
            module.training = True
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return counts


def batch_norms(net: nn.Module) -> dict[str, nn.modules.batchnorm._NormBase]:
    """Layers of batch normalisation by path; instance normalisation with statistics is one."""
    kinds = (*_BATCH_NORMS, *_INSTANCE_NORMS)
    return {path: module for path, module in net.named_modules() if isinstance(module, kinds)}


def are_trained(norms: Mapping[str, nn.modules.batchnorm._NormBase]) -> bool:
    """Whether the statistics of batch normalisation have ever been moved."""
    return any(_moved(norm) for norm in norms.values())


def _moved(norm: nn.modules.batchnorm._NormBase) -> bool:
    if norm.running_mean is None or norm.running_var is None:
        return False
    return bool((norm.running_mean != 0).any()) or bool((norm.running_var != 1).any())


def replace_batch_norms(net: nn.Module, how: BatchNorm, values: Mapping[str, int]) -> None:
    """Group normalisation in the place of batch normalisation, or its statistics as they are.

    Args:
        net: is changed.
        how: ``"groups"`` or ``"frozen"``; a layer without statistics is always by groups.
        values: by path, how many values a channel of a sample has; one group is over 16 at least where there are as many.
    """
    for path, norm in batch_norms(net).items():
        if how == "frozen" and norm.running_mean is not None:
            replace(net, path, FrozenBatchNorm(norm))
        else:
            replace(net, path, _grouped(norm, groups_of(norm.num_features, values.get(path, 1))))


def groups_of(channels: int, values: int) -> int:
    """How many groups: 8, or the most below that divide the channels and leave a group 16 values.

    >>> groups_of(64, 49), groups_of(64, 1), groups_of(6, 1)
    (8, 4, 1)
    """
    fitting = (n for n in range(min(8, channels), 0, -1) if channels % n == 0)
    return next((n for n in fitting if channels // n * values >= _LEAST), 1)


def _grouped(norm: nn.modules.batchnorm._NormBase, groups: int) -> nn.GroupNorm:
    made = nn.GroupNorm(groups, norm.num_features, norm.eps, affine=norm.affine)
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    return made


def spatial(shape: tuple[int, ...]) -> int:
    """Values of a channel of one sample, of what a layer takes [B, channels, ...]."""
    return math.prod(shape[2:])


def norm_parameters(net: nn.Module) -> Iterator[str]:
    """Names of parameters that scale and shift what is normalised."""
    kinds = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, FrozenBatchNorm)
    for path, module in net.named_modules():
        if isinstance(module, kinds):
            yield from (
                f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)
            )
