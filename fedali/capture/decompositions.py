"""Rewrites of aten operations that make a captured step fast, each equal to what it replaces.

``CHANNELS_LAST`` is for CPU compilers: convolutions stay convolutions, but with the channels innermost in memory, and
one-dimensional ones become two-dimensional ones of height 1. Measured on one core (AMD EPYC, float32, batch 64): a
convolution of 64 to 128 channels runs at 105-110 GFLOP/s so, at 55-60 or 85-100 in torch's own layouts, where a large
matrix product runs at 95.

``MATMUL`` turns convolutions into matrix products over unfolded windows, which stack over clients.

Pooling becomes maxima over strided slices in both: torch's own needs positions, and the other layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

Table = dict[Any, Callable[..., Any]]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

_KEEP: Any = NotImplemented  # what a rewrite gives to leave the operation as it is


def _last(x: Tensor) -> Tensor:
    """[B, C, H, W] with the channels innermost in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """``aten.convolution`` with the channels innermost."""
    if x.dim() == 3:
        y: Tensor = _convolution(
            x.unsqueeze(2),
            weight.unsqueeze(2),
            bias,
            [1, *stride],
            [0, *padding],
            [1, *dilation],
            transposed,
            [0, *output_padding],
            groups,
        )
        return y.squeeze(2)
    if x.dim() != 4 or transposed:
        return _KEEP
    if x.shape[1] == 1 and groups == 1:  # one channel is innermost either way, and torch takes the slow one
        return _unfolded_convolution(
            x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        )
    inner, kernel = _last(x), _last(weight)
    if inner is x and kernel is weight:
        return _KEEP
    return aten.convolution.default(
        inner, kernel, bias, stride, padding, dilation, transposed, output_padding, groups
    )


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
    """``aten.convolution_backward`` with the channels innermost; the bias' gradient is a sum."""
    if x.dim() == 3:
        to_x, to_weight, to_bias = _convolution_backward(
            gradient.unsqueeze(2),
            x.unsqueeze(2),
            weight.unsqueeze(2),
            bias_sizes,
            [1, *stride],
            [0, *padding],
            [1, *dilation],
            transposed,
            [0, *output_padding],
            groups,
            mask,
        )
        return (
            None if to_x is None else to_x.squeeze(2),
            None if to_weight is None else to_weight.squeeze(2),
            to_bias,
        )
    if x.dim() != 4 or transposed:
        return _KEEP
    if x.shape[1] == 1 and groups == 1:
        return _unfolded_backward(
            gradient,
            x,
            weight,
            bias_sizes,
            stride,
            padding,
            dilation,
            transposed,
            output_padding,
            groups,
            mask,
        )
    outer, inner, kernel = _last(gradient), _last(x), _last(weight)
    if outer is gradient and inner is x and kernel is weight and not mask[2]:
        return _KEEP
    to_x, to_weight, _ = aten.convolution_backward.default(
        outer,
        inner,
        kernel,
        None,
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        [mask[0], mask[1], False],
    )
    return to_x, to_weight, gradient.sum((0, 2, 3)) if mask[2] else None


def _windows(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Every window of x [B, C, *S] as a row [B*prod(S'), prod(kernel)*C], channels innermost; and S'."""
    n = x.dim() - 2
    x = x.permute(0, *range(2, 2 + n), 1)
    if any(padding):
        x = aten.constant_pad_nd(x, [0, 0, *(p for side in reversed(padding) for p in (side, side))])
    for axis in range(n):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(1 + axis, span, stride[axis])[..., :: dilation[axis]]
    size = tuple(x.shape[1 : 1 + n])
    x = x.permute(*range(1 + n), *range(2 + n, 2 + 2 * n), 1 + n)
    return x.reshape(x.shape[0] * math.prod(size), -1), size


def _unfolded_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """``aten.convolution`` as one matrix product over windows, for each group."""
    if transposed:
        return _KEEP
    n, outputs = weight.dim() - 2, weight.shape[0]
    windows, size = _windows(x, weight.shape[2:], stride, padding, dilation)
    if groups != 1:
        y = torch.bmm(_rows_by_group(windows, groups, weight), _kernel_by_group(weight, groups))
        y = y.transpose(0, 1).reshape(-1, outputs)
        y = y if bias is None else y + bias
        return y.reshape(x.shape[0], *size, outputs).permute(0, 1 + n, *range(1, 1 + n))
    y = torch.mm(windows, weight.permute(*range(2, 2 + n), 1, 0).reshape(-1, outputs))
    if bias is not None:
        y = y + bias
    return y.reshape(x.shape[0], *size, outputs).permute(0, 1 + n, *range(1, 1 + n))


def _unfolded_backward(
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
    """``aten.convolution_backward`` as matrix products over windows, for each group."""
    if transposed:
        return _KEEP
    n, (outputs, inputs), kernel = weight.dim() - 2, weight.shape[:2], weight.shape[2:]
    rows = gradient.permute(0, *range(2, 2 + n), 1).reshape(-1, outputs)
    grouped = rows.reshape(-1, groups, outputs // groups).transpose(0, 1) if groups != 1 else rows
    to_x = to_weight = None
    if mask[1] and groups != 1:
        windows, _ = _windows(x, kernel, stride, padding, dilation)
        product = torch.bmm(_rows_by_group(windows, groups, weight).transpose(1, 2), grouped)
        product = product.reshape(groups, -1, inputs, outputs // groups).permute(0, 3, 2, 1)
        to_weight = product.reshape(weight.shape)
    elif mask[1]:
        windows, _ = _windows(x, kernel, stride, padding, dilation)
        product = torch.mm(windows.t(), rows).reshape(*kernel, inputs, outputs)
        to_weight = product.permute(1 + n, n, *range(n))
    if mask[0]:
        if groups != 1:
            taps = torch.bmm(grouped, _kernel_by_group(weight, groups).transpose(1, 2))
            taps = taps.reshape(groups, len(rows), -1, inputs).permute(1, 2, 0, 3)
        else:
            taps = torch.mm(rows, weight.permute(*range(2, 2 + n), 1, 0).reshape(-1, outputs).t())
        spread = taps.reshape(x.shape[0], *gradient.shape[2:], *kernel, groups * inputs)
        for axis in reversed(range(n)):  # [B, S'.., K.., C]: the last S' and K become S, then the one before
            spread = _fold(
                spread, 1 + axis, 1 + n + axis, x.shape[2 + axis], stride[axis], padding[axis], dilation[axis]
            )
        to_x = spread.permute(0, 1 + n, *range(1, 1 + n))
    return to_x, to_weight, rows.sum(0) if mask[2] else None


def _rows_by_group(windows: Tensor, groups: int, weight: Tensor) -> Tensor:
    """Rows of ``_windows`` [N, K*C] by group of channels [groups, N, K*C/groups]."""
    inputs = weight.shape[1]
    rows = windows.reshape(len(windows), -1, groups, inputs).permute(2, 0, 1, 3)
    return rows.reshape(groups, len(windows), -1)


def _kernel_by_group(weight: Tensor, groups: int) -> Tensor:
    """A kernel [O, C/groups, *K] as matrices [groups, K*C/groups, O/groups]."""
    outputs, inputs = weight.shape[:2]
    parts = weight.reshape(groups, outputs // groups, inputs, -1).permute(0, 3, 2, 1)
    return parts.reshape(groups, -1, outputs // groups)


def _fold(
    windows: Tensor, where: int, taps: int, size: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Sum overlapping windows: axes ``where`` [S'] and ``taps`` [K] become the one axis ``where`` [size]."""
    count = windows.shape[where]
    per_phase = -(-size // stride)
    phases = []
    for phase in range(stride):  # positions phase, phase + stride, ...
        total: Tensor | None = None
        for tap in range(windows.shape[taps]):
            shift, rest = divmod(phase + padding - dilation * tap, stride)
            first, last = max(0, -shift), min(per_phase, count - shift)
            if rest or last <= first:
                continue
            piece = windows.select(taps, tap).narrow(where, first + shift, last - first)
            if (first, last) != (0, per_phase):
                behind = piece.dim() - 1 - where
                piece = aten.constant_pad_nd(piece, [0, 0] * behind + [first, per_phase - last])
            total = piece if total is None else total + piece
        if total is None:
            empty = list(windows.select(taps, 0).shape)
            empty[where] = per_phase
            total = windows.new_zeros(empty)
        phases.append(total)
    folded = phases[0] if stride == 1 else torch.stack(phases, where + 1).flatten(where, where + 1)
    return folded.narrow(where, 0, size)


def _max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """``aten.max_pool2d_with_indices`` of windows that do not overlap; what it gives as indices is the position in the
    window, as a float, and is for ``_max_pool_backward`` alone.
    """
    if not _apart(kernel, stride, padding, dilation, ceil_mode):
        return _KEEP
    height, width = (size // k * k for size, k in zip(x.shape[-2:], kernel, strict=True))
    best = position = None
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            candidate = x[..., row : height : kernel[0], column : width : kernel[1]]
            if best is None or position is None:
                best, position = candidate, torch.zeros_like(candidate)
                continue
            number = float(row * kernel[1] + column)
            position = torch.where(candidate > best, number, position)
            best = torch.maximum(best, candidate)
    assert best is not None
    assert position is not None
    return best, position


def _max_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    position: Tensor,
) -> Tensor:
    """``aten.max_pool2d_with_indices_backward`` to ``_max_pool``."""
    if not _apart(kernel, stride, padding, dilation, ceil_mode):
        return _KEEP
    height, width = gradient.shape[-2] * kernel[0], gradient.shape[-1] * kernel[1]
    numbers = torch.arange(kernel[0] * kernel[1], dtype=gradient.dtype, device=gradient.device)
    here = position[..., :, None, :, None] == numbers.reshape(kernel[0], 1, kernel[1])
    spread = torch.where(here, gradient[..., :, None, :, None], 0.0)
    spread = spread.reshape(*gradient.shape[:-2], height, width)
    rest = (x.shape[-2] - height, x.shape[-1] - width)
    return aten.constant_pad_nd(spread, [0, rest[1], 0, rest[0]]) if any(rest) else spread


def _apart(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> bool:
    """Whether pooling windows neither overlap nor leave the data."""
    return (
        list(stride or kernel) == list(kernel)
        and not any(padding)
        and all(d == 1 for d in dilation)
        and not ceil_mode
    )


def _fill(x: Tensor, value: float) -> Tensor:
    """``aten.fill``, which does not stack over clients."""
    return torch.full_like(x, value)


_POOLING: Table = {
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
}
CHANNELS_LAST: Table = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    **_POOLING,
}
MATMUL: Table = {
    aten.convolution.default: _unfolded_convolution,
    aten.convolution_backward.default: _unfolded_backward,
    aten.fill.Scalar: _fill,
    **_POOLING,
}
