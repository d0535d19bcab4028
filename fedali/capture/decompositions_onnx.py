"""Rewrites of aten operations into ones that ONNX has and onnxruntime runs fast on a CPU.

Convolutions stay what they are forwards. Backwards, what was fastest of five to eight ways for each gradient (one
thread of an AMD EPYC, onnxruntime 1.32, batch 64): in one dimension, one matrix product over all windows; in two,
``ConvTranspose`` for the input, which took 0.4-0.6 of the time of products over windows, and for the kernel one
product for each tap, 0.5-0.7 of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from fedali.capture.decompositions import _KEEP, _POOLING, Gradients, Table, _unfolded_backward

aten = torch.ops.aten


def _strided(x: Tensor, axis: int, first: int, count: int, step: int) -> Tensor:
    found: Tensor = aten.slice.Tensor(x, axis, first, first + step * (count - 1) + 1, step)
    return found


def _innermost(x: Tensor, padding: Sequence[int]) -> Tensor:
    """[B, C, *S] as [B, *S, C], padded with zeros."""
    x = x.permute(0, *range(2, x.dim()), 1)
    if any(padding):
        x = aten.constant_pad_nd(x, [0, 0, *(p for side in reversed(padding) for p in (side, side))])
    return x


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> Gradients:
    """``aten.convolution_backward`` of one or two dimensions."""
    if transposed or groups != 1:
        return _KEEP
    options = (stride, padding, dilation)
    if x.dim() == 3:
        given = (gradient, x, weight, bias_sizes, *options, transposed, output_padding, groups)
        to_x, _, to_bias = _unfolded_backward(*given, [mask[0], False, mask[2]])
        return to_x, _kernel_1d(gradient, x, weight, *options) if mask[1] else None, to_bias
    to_x = None
    if mask[0]:
        missing = [
            x.shape[2 + i]
            - ((gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i])
            - (dilation[i] * (weight.shape[2 + i] - 1) + 1)
            for i in range(x.dim() - 2)
        ]
        to_x = aten.convolution.default(gradient, weight, None, *options, True, missing, 1)
    to_weight = _kernel(gradient, x, weight, *options) if mask[1] else None
    to_bias = gradient.sum((0, *range(2, x.dim()))) if mask[2] else None
    return to_x, to_weight, to_bias


def _kernel_1d(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The gradient of a one-dimensional kernel, from the windows [B*S', taps*C] of x [B, C, S]."""
    (outputs, inputs, taps), size = weight.shape, gradient.shape[2]
    inner = _innermost(x, padding)
    pieces = [_strided(inner, 1, dilation[0] * tap, size, stride[0]) for tap in range(taps)]
    windows = torch.cat(pieces, -1).reshape(x.shape[0] * size, -1)
    product = torch.mm(gradient.transpose(1, 2).reshape(-1, outputs).t(), windows)
    return product.reshape(outputs, taps, inputs).transpose(1, 2)


def _kernel(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The gradient of a kernel of any number of dimensions, tap by tap."""
    inputs, taps, sizes = weight.shape[1], weight.shape[2:], gradient.shape[2:]
    across = gradient.permute(0, *range(2, gradient.dim()), 1).reshape(-1, weight.shape[0]).t()
    inner = _innermost(x, padding)
    products = []
    for tap in itertools.product(*map(range, taps)):
        seen = inner
        for i, position in enumerate(tap):
            seen = _strided(seen, 1 + i, dilation[i] * position, sizes[i], stride[i])
        products.append(torch.mm(across, seen.reshape(-1, inputs)))
    return torch.stack(products, -1).reshape(weight.shape)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    channels: int,
    positions: int,
    groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten.native_group_norm`` in two passes over x once its mean [B, G] and deviation [B, G] are known."""
    if weight is None or bias is None:
        return _KEEP
    rows = x.reshape(samples, groups, -1)
    mean = rows.mean(-1, keepdim=True)
    apart = rows - mean
    inverse = torch.rsqrt((apart * apart).mean(-1, keepdim=True) + epsilon)
    per_channel = (1, groups, channels // groups, 1)
    factor = inverse.unsqueeze(-1) * weight.reshape(per_channel)
    summand = bias.reshape(per_channel) - mean.unsqueeze(-1) * factor
    y = x.reshape(samples, groups, channels // groups, -1) * factor + summand
    return y.reshape(x.shape), mean.squeeze(-1), inverse.squeeze(-1)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten.native_layer_norm`` in ten operations, where torch's own rewrite comes to seventeen.

    Not ONNX's ``LayerNormalization``: onnxruntime 1.19 takes the variance from the mean of squares, and is off by 2e-5
    where the mean is ten times the deviation, by 3e-3 where it is a hundred times.
    """
    axes = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(axes, keepdim=True)
    apart = x - mean
    inverse = torch.rsqrt((apart * apart).mean(axes, keepdim=True) + epsilon)
    y = apart * inverse
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, inverse


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """``aten.gelu`` in the terms of its derivative, which are then computed once."""
    if approximate != "none":
        return _KEEP
    return x * _normal(x)


def _gelu_backward(gradient: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "none":
        return _KEEP
    density = torch.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return gradient * (_normal(x) + x * density)


def _normal(x: Tensor) -> Tensor:
    """The normal distribution's cumulative function."""
    return (torch.erf(x * math.sqrt(0.5)) + 1) * 0.5


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    inside = torch.sigmoid(x)
    return gradient * (inside * (x * (1 - inside) + 1))


def _select_backward(gradient: Tensor, sizes: Sequence[int], axis: int, index: int) -> Tensor:
    axis, index = axis % len(sizes), index % sizes[axis]
    return _placed(gradient.unsqueeze(axis), axis, index, sizes[axis] - index - 1)


def _slice_backward(
    gradient: Tensor, sizes: Sequence[int], axis: int, start: int, end: int, step: int
) -> Tensor:
    """Zeros around the gradient, where a scatter takes ten times as long; for zeros between its entries too, a
    product with a matrix of zeros and ones, where padding takes ten times as long.
    """
    axis, size = axis % len(sizes), sizes[axis]
    first, count = slice(start, end).indices(size)[0], gradient.shape[axis]
    if step == 1 or count < 2:
        return _placed(gradient, axis, first, size - first - count)
    positions = torch.arange(size, device=gradient.device)
    places = torch.arange(count, device=gradient.device) * step + first
    spread = (places[:, None] == positions).to(gradient.dtype)
    last = gradient.transpose(axis, -1)
    product = torch.mm(last.reshape(-1, count), spread)
    return product.reshape(*last.shape[:-1], size).transpose(axis, -1)


def _masked_fill(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """``aten.masked_fill`` of finite numbers with 0: onnxruntime multiplies ten times as fast as it selects."""
    if value != 0 or not x.is_floating_point():
        return _KEEP
    return x * (~mask).to(x.dtype)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """``aten.index`` of rows by numbers from 0: one ``Gather``, where the exporter makes seven operations."""
    first, *others = indices
    if others or first is None or first.dtype not in (torch.int32, torch.int64):
        return _KEEP
    rows: Tensor = aten.index_select.default(x, 0, first.reshape(-1))
    return rows if first.dim() == 1 else rows.reshape(*first.shape, *x.shape[1:])


def _embedding_backward(
    gradient: Tensor, ids: Tensor, count: int, padding: int, by_frequency: bool
) -> Tensor:
    """``aten.embedding_dense_backward``: each token's gradient [..., d] added to the row [count, d] of its id."""
    if by_frequency:
        return _KEEP
    rows, flat = ids.reshape(-1, 1), gradient.reshape(-1, gradient.shape[-1])
    if padding >= 0:
        flat = flat * (rows != padding).to(flat.dtype)
    zeros = flat.new_zeros(count, flat.shape[-1])
    found: Tensor = aten.scatter_add.default(zeros, 0, rows.expand(flat.shape), flat)
    return found


def _placed(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """``x`` with zeros before and after along one axis."""
    if before == after == 0:
        return x
    found: Tensor = aten.constant_pad_nd(x, [0, 0] * (x.dim() - 1 - axis) + [before, after])
    return found


def _composite() -> Table:
    """Torch's own rewrites of what ONNX lacks."""
    names = (
        "_log_softmax_backward_data _softmax_backward_data glu_backward index_add native_group_norm_backward "
        "native_layer_norm_backward nll_loss_backward nll_loss_forward rsub"
    )
    found: Table = get_decompositions([getattr(aten, name) for name in names.split()])
    return found


ONNX: Table = {
    **_composite(),
    aten.convolution_backward.default: _convolution_backward,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.index.Tensor: _index,
    aten.masked_fill.Scalar: _masked_fill,
    aten.native_group_norm.default: _group_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.select_backward.default: _select_backward,
    aten.silu.default: _silu,
    aten.silu_backward.default: _silu_backward,
    aten.slice_backward.default: _slice_backward,
    **_POOLING,
}
