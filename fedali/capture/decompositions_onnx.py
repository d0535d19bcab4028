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

from fedali.capture.decompositions import (
    _KEEP,
    _POOLING,
    Gradients,
    Table,
    _fold,
    _unfolded_backward,
)

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
    if transposed:
        return _KEEP
    options = (stride, padding, dilation)
    if x.dim() == 3 and groups == 1:
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
        to_x = aten.convolution.default(gradient, weight, None, *options, True, missing, groups)
    to_weight = None
    if mask[1]:
        if groups == 1:
            to_weight = _kernel(gradient, x, weight, *options)
        else:
            to_weight = _kernel_of_groups(gradient, x, weight, *options, groups)
    to_bias = gradient.sum((0, *range(2, x.dim()))) if mask[2] else None
    return to_x, to_weight, to_bias


def _kernel_of_groups(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The gradient of a kernel of several groups, one product of every group for each tap."""
    batch, channels, outputs, size = x.shape[0], x.shape[1], weight.shape[0], gradient.shape[2:]
    if any(padding):
        x = aten.constant_pad_nd(x, [p for side in reversed(padding) for p in (side, side)])
    left = gradient.reshape(batch, groups, outputs // groups, -1).permute(1, 2, 0, 3)
    left = left.reshape(groups, outputs // groups, -1)
    products = []
    for tap in itertools.product(*map(range, weight.shape[2:])):
        piece = x
        for axis, (place, count) in enumerate(zip(tap, size, strict=True)):
            piece = _strided(piece, 2 + axis, dilation[axis] * place, count, stride[axis])
        right = piece.reshape(batch, groups, channels // groups, -1).permute(1, 0, 3, 2)
        products.append(torch.bmm(left, right.reshape(groups, -1, channels // groups)))
    return torch.stack(products, -1).reshape(weight.shape)


def _adaptive_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """``aten._adaptive_avg_pool2d`` as a product with a matrix of shares on each side."""
    rows, columns = (_shares(x, axis, count) for axis, count in zip((-2, -1), size, strict=True))
    return torch.matmul(torch.matmul(rows, x), columns.t())


def _adaptive_pool_backward(gradient: Tensor, x: Tensor) -> Tensor:
    rows, columns = (_shares(x, axis, gradient.shape[axis]) for axis in (-2, -1))
    return torch.matmul(torch.matmul(rows.t(), gradient), columns)


def _shares(x: Tensor, axis: int, count: int) -> Tensor:
    """Which share of an output each input is, along one axis [count, inputs]."""
    size = x.shape[axis]
    shares = torch.zeros(count, size, dtype=x.dtype)
    for i in range(count):
        first, last = i * size // count, -(-(i + 1) * size // count)
        shares[i, first:last] = 1 / (last - first)
    return shares.to(x.device)


def _average_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """``aten.avg_pool2d_backward``: every window gives each of its places its share."""
    if ceil_mode or (any(padding) and not count_include_pad):
        return _KEEP
    steps = list(stride) or list(kernel)
    spread = gradient / (divisor or math.prod(kernel))
    spread = spread[..., None, None].expand(*gradient.shape, *kernel)
    spread = _fold(spread, 3, 5, x.shape[3], steps[1], padding[1], 1)
    return _fold(spread, 2, 4, x.shape[2], steps[0], padding[0], 1)


def _unbind(x: Tensor, axis: int = 0) -> list[Tensor]:
    """``aten.unbind`` of many parts as a slice for each: one node may have 64 outputs in a bundle."""
    if x.shape[axis] <= 4:
        return _KEEP
    return [x.select(axis, number) for number in range(x.shape[axis])]


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
        "native_layer_norm_backward nll_loss_backward nll_loss_forward rsub "
        "elu elu_backward hardsigmoid hardsigmoid_backward hardswish hardswish_backward hardtanh hardtanh_backward "
        "leaky_relu leaky_relu_backward mish mish_backward sigmoid_backward softplus softplus_backward tanh_backward"
    )
    found: Table = get_decompositions([getattr(aten, name) for name in names.split()])
    return found


ONNX: Table = {
    **_composite(),
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_pool_backward,
    aten.avg_pool2d_backward.default: _average_pool_backward,
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
    aten.unbind.int: _unbind,
    **_POOLING,
}
