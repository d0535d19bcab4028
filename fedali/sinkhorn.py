"""The transport plan of a training step, between the tokens of a batch and the prototypes, in torch: it is captured with the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TINY = 1e-30  # keeps a division finite
_NEVER = -1e30  # the logarithm of what padding weighs
_COLD = 0.03  # temperature: exp(-2 / 0.03) is 1e-29


def sinkhorn(
    similarity: Tensor, *, temperature: float, iterations: int, valid: Tensor | None = None
) -> Tensor:
    """Transport plan between tokens and prototypes, scaled so that every prototype column sums to 1.

    Sinkhorn-Knopp by scaling vectors: ``exp(similarity / temperature)`` is kept, only its row scaling ``u`` and
    column scaling ``v`` are iterated (Cuturi 2013). Rows are divided first and columns last, as published.

    Args:
        similarity: [N, P] cosine of N tokens and P prototypes.
        temperature: entropic regularisation, > 0.
        iterations: how many times rows and columns are rescaled.
        valid: [N] of 0 and 1; tokens that are padding get no mass.

    Returns:
        [N, P] plan, finite. A token that is alone keeps the scaling of its row: columns of one entry would
        all be 1, and say nothing of which prototype is near.

    Below a temperature of 0.03 ``exp(similarity / temperature)`` of cosines leaves the range of float32 (it is below 1e-30 of the best);
    there the logarithms of ``u`` and ``v`` are iterated, which takes a few times as long.
    """
    tokens, prototypes = similarity.shape
    if temperature < _COLD:
        return _cold_sinkhorn(similarity / temperature, iterations if tokens > 1 else 0, valid)
    kernel = torch.exp((similarity - similarity.amax(1, keepdim=True)) / temperature)
    count: Tensor | float = float(tokens)
    if valid is not None:
        kernel = kernel * valid[:, None]
        count = valid.sum().clamp(min=1.0)
    v = torch.ones_like(kernel[0])
    u = torch.ones_like(kernel[:, 0])
    for _ in range(iterations if tokens > 1 else 0):
        u = 1.0 / ((kernel @ v) * count).clamp(min=_TINY)
        if valid is not None:
            u = u * valid
        scaled = 1.0 / ((u @ kernel) * prototypes).clamp(min=_TINY)
        v = scaled if valid is None else torch.where(valid.sum() > 1, scaled, torch.ones_like(scaled))
    return (kernel * u[:, None]) * (v * prototypes)


def _cold_sinkhorn(logits: Tensor, iterations: int, valid: Tensor | None) -> Tensor:
    """``sinkhorn`` of ``logits`` [N, P] = similarity / temperature, by logarithms."""
    tokens, prototypes = logits.shape
    logits = logits - logits.amax(1, keepdim=True)
    u, v = torch.zeros_like(logits[:, 0]), torch.zeros_like(logits[0])
    count = torch.full_like(u[:1], float(tokens)).log()
    if valid is not None:
        logits = torch.where(valid[:, None] > 0, logits, torch.full_like(logits, _NEVER))
        count = valid.sum().clamp(min=1.0).log()
    for _ in range(iterations):
        u = -torch.logsumexp(logits + v, 1) - count
        if valid is not None:
            u = u * valid
        scaled = -torch.logsumexp(logits + u[:, None], 0) - math.log(prototypes)
        v = scaled if valid is None else torch.where(valid.sum() > 1, scaled, torch.zeros_like(scaled))
    return torch.exp(logits + u[:, None] + (v + math.log(prototypes)))
