"""Functions of torch by their formulas, where torch has kernels that can be neither stacked nor exported: attention, means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainFunctions(TorchFunctionMode):
    """While it is entered, in this thread, attention is products and a softmax, and pooling to one value is a mean.

    Attributes:
        seen: whether any of them was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Any call of torch."""
        if function is F.scaled_dot_product_attention:
            self.seen = True
            return _attention(*args, **(kwargs or {}))
        if function is F.adaptive_avg_pool2d:
            return self._pool(*args, **(kwargs or {}))
        if function is F.multi_head_attention_forward:  # its own formula is what gives the weights, too
            self.seen = True
            given = dict(kwargs or {})
            asked = given.get("need_weights", True)
            output, weights = function(*args, **{**given, "need_weights": True})
            return output, weights if asked else None
        return function(*args, **(kwargs or {}))

    def _pool(self, input: Tensor, output_size: Any) -> Tensor:  # noqa: A002
        """Torch's own writes strides into what it gives where channels are innermost."""
        if output_size in (1, (1, 1), [1, 1]):
            self.seen = True
            return input.mean((-2, -1), keepdim=True)
        return F.adaptive_avg_pool2d(input, output_size)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v, without dropout."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        rows, columns = (torch.arange(n, device=query.device) for n in scores.shape[-2:])
        scores = torch.where(columns <= rows[:, None], scores, -math.inf)
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        scores = torch.where(attn_mask, scores, -math.inf) if boolean else scores + attn_mask
    return torch.softmax(scores, -1) @ value
