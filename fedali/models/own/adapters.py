"""Low-rank adapters (Hu et al., ICLR 2022, arXiv 2106.09685): linear layers that stay as they are, and a product of two thin
matrices beside each, which trains and travels in their place.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.own.layers import replace


@dataclass(frozen=True)
class Adapters:
    """Where low-rank adapters sit.

    Args:
        at: globs of paths of linear layers.
        rank: r.
        alpha: their products are scaled by alpha / r; None is r, which scales by 1.
    """

    at: tuple[str, ...]
    rank: int = 8
    alpha: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Adapters:
        """From settings. Raises ``SettingsError`` for one that does not exist, or makes no sense."""
        for key in given:
            if key not in cls.__dataclass_fields__:
                raise SettingsError(
                    f"adapters has no setting {key!r}; {did_you_mean(key, cls.__dataclass_fields__)}"
                )
        at, rank, alpha = given.get("at", ()), given.get("rank", 8), given.get("alpha")
        at = (at,) if isinstance(at, str) else tuple(at)
        if not at or not all(isinstance(one, str) for one in at):
            raise SettingsError(f"adapters.at is {at!r}, and has to name linear layers, such as '*.qkv'")
        if not isinstance(rank, int) or rank < 1:
            raise SettingsError(f"adapters.rank is {rank!r}, and has to be a whole number from 1")
        if alpha is not None and (not isinstance(alpha, int | float) or alpha <= 0):
            raise SettingsError(f"adapters.alpha is {alpha!r}, and has to be a number above 0")
        return cls(at, rank, alpha)


class LowRank(nn.Module):
    """A linear layer and its adapter: x W^T + b + alpha/r x A^T B^T, where B is zero at first.

    Args:
        layer: the linear layer, whose parameters keep their names.
        rank: r.
        alpha: see ``Adapters``.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float | None) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = 1.0 if alpha is None else alpha / rank
        self.lora_a = nn.Parameter(torch.empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., out] of x [..., in]."""
        beside = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return F.linear(x, self.weight, self.bias) + (beside if self.scale == 1.0 else beside * self.scale)


def put_adapters(net: nn.Module, adapters: Adapters, head: Iterable[str]) -> list[str]:
    """Put adapters beside the linear layers that match: their paths.

    ``head``: paths that get none. Raises ``SettingsError`` for a glob that matches no linear layer.
    """
    without = set(head)
    linear = {p: m for p, m in net.named_modules() if type(m) is nn.Linear and p not in without}
    chosen: dict[str, nn.Linear] = {}
    for pattern in adapters.at:
        found = fnmatch.filter(linear, pattern)
        if not found:
            raise SettingsError(
                f"adapters.at {pattern!r} matches no linear layer; {did_you_mean(pattern, linear)}"
            )
        chosen |= {path: linear[path] for path in found}
    for path, layer in chosen.items():
        replace(net, path, LowRank(layer, adapters.rank, adapters.alpha))
    return list(chosen)
