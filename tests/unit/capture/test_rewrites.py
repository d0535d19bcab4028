"""Rewrites of what networks of one's own bring, against torch's own operations."""

from __future__ import annotations

import pytest
import torch

from fedali.capture.decompositions import MATMUL
from fedali.capture.decompositions_onnx import ONNX

aten = torch.ops.aten
GROUPED = {
    "depthwise": ((2, 6, 7, 6), (6, 1, 3, 3), [2, 2], [1, 1], [1, 1], 6),
    "two groups": ((2, 4, 6, 5), (6, 2, 3, 2), [1, 2], [1, 0], [2, 1], 2),
    "of windows": ((2, 4, 11), (8, 1, 5), [2], [2], [1], 4),
}


@pytest.mark.parametrize("table", [MATMUL, ONNX], ids=["stacked", "onnx"])
@pytest.mark.parametrize("case", GROUPED)
def test_convolutions_of_groups(case, table):
    shape, kernel, stride, padding, dilation, groups = GROUPED[case]
    x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in (shape, kernel, kernel[:1]))
    options = (stride, padding, dilation, False, [0] * len(stride), groups)
    expected = aten.convolution(x, weight, bias, *options)
    if aten.convolution.default in table:
        found = table[aten.convolution.default](x, weight, bias, *options)
        torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    given = (gradient, x, weight, [kernel[0]], *options, [True] * 3)
    found = table[aten.convolution_backward.default](*given)
    torch.testing.assert_close(tuple(found), tuple(aten.convolution_backward(*given)))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 5)])
def test_adaptive_pooling_is_products(size):
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    expected = aten._adaptive_avg_pool2d(x, size)
    torch.testing.assert_close(ONNX[aten._adaptive_avg_pool2d.default](x, size), expected)
    gradient = torch.randn_like(expected)
    found = ONNX[aten._adaptive_avg_pool2d_backward.default](gradient, x)
    torch.testing.assert_close(found, aten._adaptive_avg_pool2d_backward(gradient, x))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [([2, 2], [], [0, 0]), ([3, 2], [2, 1], [1, 1])])
def test_average_pooling_gives_each_place_its_share(kernel, stride, padding):
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    options = (kernel, stride, padding, False, True, None)
    gradient = torch.randn_like(aten.avg_pool2d(x, *options))
    found = ONNX[aten.avg_pool2d_backward.default](gradient, x, *options)
    torch.testing.assert_close(found, aten.avg_pool2d_backward(gradient, x, *options))
