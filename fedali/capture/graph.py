"""A captured function: torch operations from named inputs to named outputs, and how one comes about."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.func import functionalize
from torch.fx import GraphModule

from fedali.capture.decompositions import Table
from fedali.errors import SettingsError

# Torch's tracer and exporter are imported where they are used: a run whose graphs are cached starts sooner without.


def open_batch(inputs: Sequence[str]) -> tuple[Any, ...]:
    """Which axes of a graph's inputs are left open, as ``torch.export`` wants to be told: the first of x."""
    return tuple(
        {0: torch.export.Dim("batch", min=1, max=1 << 16)} if name == "x" else None for name in inputs
    )


@dataclass(frozen=True)
class Graph:
    """A captured function.

    Args:
        module: takes and gives tensors in the order of ``inputs`` and ``outputs``.
        inputs: names.
        outputs: names.
        example: one tensor for each input, of the only shapes and dtypes that fit.
        open_batch: whether the first axis of ``x`` may have any length of at least 1.
        program: the same as torch exports it; None where ``module`` says all.
    """

    module: GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    open_batch: bool = False
    program: ExportedProgram | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the graph as it is, operation by operation."""
        found: Any = self.module(*tensors)
        return tuple(found)

    def fingerprint(self) -> str:
        """A hash of what the graph computes: its operations, constants, shapes and dtypes."""
        known = hashlib.sha256(self.module.code.encode() + bytes(self.open_batch))
        for tensor in self.example:
            known.update(repr((tuple(tensor.shape), tensor.dtype, tensor.device.type)).encode())
        for name, constant in sorted(_constants(self.module).items()):
            known.update(name.encode() + repr(constant.dtype).encode() + constant.cpu().numpy().tobytes())
        return known.hexdigest()[:32]


def trace(
    function: Callable[..., tuple[Tensor, ...]], example: Sequence[Tensor], table: Table | None
) -> GraphModule:
    """The operations of ``function``, for the shapes of ``example``, with those in ``table`` rewritten."""
    from torch.fx.experimental.proxy_tensor import make_fx

    pure = functionalize(function, remove="mutations")
    try:
        module: GraphModule = make_fx(pure, decomposition_table=table or {})(*example)
    except RuntimeError as error:
        if "data-dependent" not in str(error) and "tracing tensor" not in str(error):
            raise
        raise SettingsError(
            "the step cannot be made a graph: the method or the model branches on a value, or takes a number out of a tensor. "
            "Use torch.where and the like; engine 'loop' alone runs it as it is"
        ) from error
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def trace_open(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[str],
    example: Sequence[Tensor],
    table: Table | None,
) -> ExportedProgram:
    """``trace`` of inference with the first axis of x, one of the ``inputs``, left open."""

    class Function(torch.nn.Module):
        def forward(self, *given: Tensor) -> Any:
            return function(*given)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own calls of what it has deprecated
        try:
            program = torch.export.export(Function(), tuple(example), dynamic_shapes=(open_batch(inputs),))
        except torch._dynamo.exc.UserError as error:
            if "Constraints violated" not in str(error):
                raise
            raise SettingsError(
                "the network takes the length of its batch as a number, so that a device could predict for as many samples alone: "
                "write x.shape[0] where it has len(x)"
            ) from error
        decomposed: ExportedProgram = program.run_decompositions(dict(table or {}))
    return decomposed


def _constants(module: GraphModule) -> dict[str, Tensor]:
    found = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value: Any = module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, Tensor):
                found[str(node.target)] = value.detach()
    return found
