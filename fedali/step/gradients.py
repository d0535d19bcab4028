"""Gradients inside an objective: constants to what is differentiated around them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedali.step.types import Parameters


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
