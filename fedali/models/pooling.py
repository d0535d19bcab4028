"""Halving of feature maps: the larger of two neighbours, as max-pooling of two, without its indices.

Pooling with indices took 16-29 % of an eager step, and cannot be exported. The derivative that autograd finds for it took
as long; the one here, of the same values, takes a third. It is not for graphs: whoever runs a model without capturing it
says so by ``eager``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_own = threading.local()


@contextmanager
def eager() -> Iterator[None]:
    """In this thread, models run and are differentiated here and now: nothing captures or stacks them."""
    before = getattr(_own, "eager", False)
    _own.eager = True
    try:
        yield
    finally:
        _own.eager = before


def halve(x: Tensor) -> Tensor:
    """Maximum of neighbours along the last axis, [..., n] -> [..., n // 2]; unchanged when n is 1."""
    n = x.shape[-1] // 2
    return torch.maximum(x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]) if n else x


def halve_images(x: Tensor) -> Tensor:
    """``halve`` of width, then of height: [..., h, w] -> [..., h // 2, w // 2]."""
    if getattr(_own, "eager", False):
        return _halve(_halve(x, -1), -2)
    return halve(halve(x).transpose(-2, -1)).transpose(-2, -1)


def _halve(x: Tensor, axis: int) -> Tensor:
    halved: Tensor = _Halve.apply(x, axis) if x.shape[axis] > 1 else x  # type: ignore[no-untyped-call]
    return halved


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Views of the first and of the second of each two neighbours."""
    n = x.shape[axis] // 2
    if axis == -1:
        return x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
    return x[..., 0 : 2 * n : 2, :], x[..., 1 : 2 * n : 2, :]


class _Halve(torch.autograd.Function):
    """Equal neighbours get half of the gradient each, as by ``torch.maximum``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        first, second = _pairs(x, axis)
        ctx.save_for_backward(first, second)
        ctx.shape, ctx.axis = x.shape, axis
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first, second = ctx.saved_tensors
        odd = ctx.shape[ctx.axis] % 2
        found = gradient.new_zeros(ctx.shape) if odd else gradient.new_empty(ctx.shape)
        of_first, of_second = _pairs(found, ctx.axis)
        share = torch.sign(first - second).add_(1.0).mul_(0.5)  # 0, a half or 1
        torch.mul(gradient, share, out=of_first)
        torch.sub(gradient, of_first, out=of_second)
        return found, None
