"""Gradients inside an objective, which are constants to what is differentiated around them; and clipped ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedali.step.types import Parameters

_CLIP_EPSILON = 1e-6  # torch's


def gradient_by_transform(
    function: Callable[[Parameters], Tensor], parameters: Parameters
) -> tuple[Parameters, Tensor]:
    """By each parameter, of the number that ``function`` makes of them, and that: it can be traced and stacked."""
    from torch.func import grad_and_value  # its first call loads torch's compiler, which takes a second

    found, value = grad_and_value(function)({name: part.detach() for name, part in parameters.items()})
    return {name: part.detach() for name, part in found.items()}, value.detach()


def gradient_by_autograd(
    function: Callable[[Parameters], Tensor], parameters: Parameters
) -> tuple[Parameters, Tensor]:
    """The same by the autograd engine itself, for steps that run here and now."""
    leaves = {name: part.detach().requires_grad_() for name, part in parameters.items()}
    with torch.enable_grad():
        value = function(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True)), value.detach()


def clipped(gradient: Tensor, parts: Sequence[slice], most: float) -> Tensor:
    """A flat gradient [T] with each of ``parts`` no longer than ``most``: what ``torch.nn.utils.clip_grad_norm_`` makes of each.

    Parts are a model, or a trained slot of a method: two models that train side by side have norms of their own. They follow each other
    from the beginning; what lies between them or behind stays as it is.
    """
    pieces, end = [], 0
    for part in parts:
        here = gradient[part]
        scale = (most / (here.square().sum().sqrt() + _CLIP_EPSILON)).clamp(max=1.0)
        pieces += [gradient[end : part.start], here * scale]
        end = part.stop
    return torch.cat([*pieces, gradient[end:]])
