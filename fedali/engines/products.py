"""Matrix products of compiled graphs by oneDNN instead of MKL.

Torch gives a float32 product on a CPU to MKL, which on AMD's processors runs code for half their vector width: on one
core of an EPYC 26/2, HART's products run at 100-115 GFLOP/s so, and at 165-270 GFLOP/s by oneDNN, which torch
carries too but calls for constant weights alone. A call of oneDNN's costs 10 microseconds more, which pays from a few
megaFLOP on. Products of other dtypes stay as they are.

Everything here is private to torch's compiler; torch is pinned, and this is loaded in the compiling process only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor import ir, lowering, mkldnn_ir

aten = torch.ops.aten

LEAST_FLOP = 4_000_000


class _Product(mkldnn_ir.LinearUnary):
    """x [M, K] times w [N, K] transposed, plus b [N]; x of any strides, w contiguous or a contiguous one transposed."""

    @classmethod
    def of(cls, x: Any, w: Any, b: Any = None) -> Any:
        inputs = [cls.realize_input(x), cls._dense(cls.realize_input(w))]
        constants: list[Any] = ["none", [-1], ""]
        if b is None:
            constants.insert(0, None)
        else:
            inputs.append(cls.require_contiguous(cls.realize_input(b)))
        layout = ir.FixedLayout(x.get_device(), x.get_dtype(), [x.get_size()[0], w.get_size()[0]])
        output: Any = mkldnn_ir._create_output_node  # has no types
        return output(cls(layout, inputs, constants))

    @classmethod
    def _dense(cls, w: Any) -> Any:
        """The weights as oneDNN has fast code for: other strides take its reference loops, a thousand times slower."""
        w.freeze_layout()
        n, k = w.get_size()
        return w if list(w.get_stride()) in ([k, 1], [1, n]) else cls.require_contiguous(w)


def use_onednn() -> None:
    """From now on, this process compiles large float32 products on the CPU to calls of oneDNN."""
    known = {operation: lowering.lowerings[operation] for operation in (aten.mm.default, aten.addmm.default)}

    def mm(a: Any, b: Any, *rest: Any, **named: Any) -> Any:
        if rest or named or not _pays(a, b):
            return known[aten.mm.default](a, b, *rest, **named)
        return ir.TensorBox.create(_Product.of(a, _transposed(b)))

    def addmm(bias: Any, a: Any, b: Any, *rest: Any, **named: Any) -> Any:
        if rest or named or len(bias.get_size()) != 1 or not _pays(a, b):
            return known[aten.addmm.default](bias, a, b, *rest, **named)
        return ir.TensorBox.create(_Product.of(a, _transposed(b), bias))

    lowering.lowerings[aten.mm.default] = mm
    lowering.lowerings[aten.addmm.default] = addmm


def _pays(a: Any, b: Any) -> bool:
    """Whether oneDNN does a [M, K] times b [K, N] faster; the shapes of captured graphs are fixed."""
    if not torch._C._has_mkldnn or a.get_dtype() is not torch.float32 or a.get_device().type != "cpu":
        return False
    m, k, n = (int(size) for size in (*a.get_size(), b.get_size()[1]))
    return 2 * m * k * n >= LEAST_FLOP


def _transposed(b: Any) -> Any:
    return lowering.lowerings[aten.permute.default](b, [1, 0])
