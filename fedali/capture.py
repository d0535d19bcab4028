"""The local step as one graph: forward, backward, optimizer and prototype update, in aten operations.

What is captured is ``fedali.step`` itself. Engines compile the graph, stack it over clients or export it; there is no
second implementation of the maths. Shapes are fixed, among them the batch, whose samples of weight 0 are padding;
numbers that change between steps and rounds are inputs.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fedali.alp import Matcher
from fedali.decompositions import Table
from fedali.models import Model
from fedali.optimizers import Optimizer
from fedali.step import Batch, Hyper, Objective, Shared, State, make_predict, make_step

STEP_INPUTS = (
    *(*State._fields, *Batch._fields),
    *(f"shared_{name}" for name in Shared._fields),
    *Hyper._fields,
)
STEP_OUTPUTS = (*State._fields, "loss", "correct", "weight")
PREDICT_INPUTS = ("theta", "local_prototypes", "x", "influence")

PER_CLIENT = (*State._fields, *Batch._fields)  # what differs between stacked clients; the rest they share


@dataclass(frozen=True)
class Graph:
    """A captured function.

    Args:
        module: takes and gives tensors in the order of ``inputs`` and ``outputs``.
        inputs: names.
        outputs: names.
        example: one tensor for each input, of the only shapes and dtypes that fit.
    """

    module: GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the graph as it is, operation by operation."""
        found: Any = self.module(*tensors)
        return tuple(found)

    def fingerprint(self) -> str:
        """A hash of what the graph computes: its operations, constants, shapes and dtypes."""
        known = hashlib.sha256(self.module.code.encode())
        for tensor in self.example:
            known.update(repr((tuple(tensor.shape), tensor.dtype, tensor.device.type)).encode())
        for name, constant in sorted(_constants(self.module).items()):
            known.update(name.encode() + repr(constant.dtype).encode() + constant.cpu().numpy().tobytes())
        return known.hexdigest()[:32]


def capture_step(
    model: Model,
    objective: Objective,
    optimizer: Optimizer,
    *,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
) -> Graph:
    """One local step, from ``STEP_INPUTS`` to ``STEP_OUTPUTS``.

    Args:
        model: the architecture; its weights are not read.
        objective: of the method.
        optimizer: its update is part of the graph.
        input_shape: of one sample.
        batch: B, fixed.
        dtype: of all floating-point inputs.
        device: the graph runs on.
        table: rewrites of operations, from ``fedali.decompositions``.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    step = make_step(model, objective, optimizer)
    theta = model.theta()
    local = torch.randn(model.prototype_layout.size, dtype=dtype, device=device)
    x = torch.randn(batch, *input_shape, dtype=dtype, device=device)
    y = torch.zeros(batch, dtype=torch.int64, device=device)
    numbers = (torch.full((), 0.5, dtype=dtype, device=device) for _ in Hyper._fields)
    example = (
        *State(theta, *optimizer.initial(theta), local),
        *Batch(x, y, torch.ones(batch, dtype=dtype, device=device)),
        *Shared(theta.clone(), local.clone()),
        *Hyper(*numbers),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        parts, first = [], 0
        for kind in (State, Batch, Shared, Hyper):
            size = len(kind._fields)
            parts.append(kind(*tensors[first : first + size]))
            first += size
        state, metrics = step(*parts)  # type: ignore[arg-type]
        return (*state, *metrics)

    return Graph(_trace(flat, example, table), STEP_INPUTS, STEP_OUTPUTS, example)


def capture_predict(
    model: Model,
    *,
    matcher: Matcher | None,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
) -> Graph:
    """Inference, from ``PREDICT_INPUTS`` to logits [B, classes]; ``matcher`` as in ``fedali.step.make_predict``."""
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    predict = make_predict(model, matcher=matcher)
    example = (
        model.theta(),
        torch.randn(model.prototype_layout.size, dtype=dtype, device=device),
        torch.randn(batch, *input_shape, dtype=dtype, device=device),
        torch.ones((), dtype=dtype, device=device),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (predict(*tensors),)

    return Graph(_trace(flat, example, table), PREDICT_INPUTS, ("logits",), example)


def stack(graph: Graph, clients: int) -> Graph:
    """The graph of a step for many clients at once: inputs of State and Batch get a leading axis [clients], and so do all
    outputs; what the server sent and the numbers are shared.

    Convolutions stack well only as matrix products: capture ``graph`` with ``fedali.decompositions.MATMUL``.
    """
    example = tuple(
        tensor.expand(clients, *tensor.shape).contiguous() if name in PER_CLIENT else tensor
        for name, tensor in zip(graph.inputs, graph.example, strict=True)
    )
    return Graph(_trace(over_clients(graph), example, None), graph.inputs, graph.outputs, example)


def over_clients(graph: Graph) -> Callable[..., tuple[Tensor, ...]]:
    """``stack`` for any number of clients, operation by operation."""
    axes = tuple(0 if name in PER_CLIENT else None for name in graph.inputs)
    stacked: Callable[..., tuple[Tensor, ...]] = vmap(graph.module, in_dims=axes)
    return stacked


def _trace(
    function: Callable[..., tuple[Tensor, ...]], example: Sequence[Tensor], table: Table | None
) -> GraphModule:
    pure = functionalize(function, remove="mutations")
    module: GraphModule = make_fx(pure, decomposition_table=table or {})(*example)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


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
