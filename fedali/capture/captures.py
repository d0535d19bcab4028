"""The local step as one graph: forward, backward, optimizer and prototype update, in aten operations.

What is captured is ``fedali.step`` itself. Engines compile the graph, stack it over clients or export it; there is no
second implementation of the maths. Shapes are fixed, among them the batch, whose samples of weight 0 are padding;
numbers that change between steps and rounds are inputs. Inference alone may leave its batch open.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from fedali.alp import Matcher
from fedali.capture.decompositions import Table
from fedali.capture.graph import Graph as Graph
from fedali.capture.graph import trace, trace_open
from fedali.models import Model
from fedali.optimizers.rules import Optimizer
from fedali.step import (
    Batch,
    Hyper,
    Objective,
    Predict,
    Shared,
    State,
    Step,
    make_adapt,
    make_embed,
    make_head_step,
    make_predict,
    make_step,
)

STEP_INPUTS = (
    *(*State._fields, *Batch._fields),
    *(f"shared_{name}" for name in Shared._fields),
    *Hyper._fields,
)
STEP_OUTPUTS = (*State._fields, "loss", "correct", "weight")
PREDICT_INPUTS = ("theta", "local_prototypes", "x", "influence")
ADAPT_INPUTS = ("theta", "local_prototypes", "x", "weights", "shared_prototypes", "influence", "decay")
PER_CLIENT = (*State._fields, *Batch._fields)  # what differs between stacked clients; the rest they share


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
        table: rewrites of operations, from ``fedali.capture.decompositions``.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    x = torch.randn(batch, *input_shape, dtype=dtype, device=device)
    return _capture_step(make_step(model, objective, optimizer), model, model.theta(), optimizer, x, table)


def capture_head_step(
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
    """One local step of the head alone, see ``fedali.step.make_head_step``; arguments as for ``capture_step``.

    Inputs and outputs are those of ``capture_step``, where theta, moments and the server's theta are the head's [H], x are
    embeddings [B, d], and what concerns prototypes is not read.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    sample = torch.zeros(1, *input_shape, dtype=dtype, device=device)
    prototypes = torch.ones(model.prototype_layout.size, dtype=dtype, device=device)
    embedding = make_embed(model, matcher="cosine")(model.theta(), prototypes, sample, 0.0)
    x = torch.randn(batch, embedding.shape[1], dtype=dtype, device=device)
    theta = torch.cat([p.detach().reshape(-1) for p in model.head.parameters()])
    return _capture_step(make_head_step(model, objective, optimizer), model, theta, optimizer, x, table)


def _capture_step(
    step: Step, model: Model, theta: Tensor, optimizer: Optimizer, x: Tensor, table: Table | None
) -> Graph:
    local = x.new_empty(model.prototype_layout.size).normal_()
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    numbers = (x.new_full((), 0.5) for _ in Hyper._fields)
    example = (
        *State(theta, *optimizer.initial(theta), local),
        *Batch(x, y, x.new_ones(len(x))),
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

    return Graph(trace(flat, example, table), STEP_INPUTS, STEP_OUTPUTS, example)


def capture_predict(
    model: Model,
    *,
    matcher: Matcher | None,
    input_shape: Sequence[int],
    batch: int | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
    frozen: Tensor | None = None,
) -> Graph:
    """Inference, from ``PREDICT_INPUTS`` to logits [B, classes]; ``matcher`` and ``frozen`` as in ``fedali.step.make_predict``.

    ``batch`` None leaves B open; such a graph is for export alone: engines want fixed shapes.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    return _capture_infer(
        make_predict(model, matcher=matcher, frozen=frozen), "logits", model, input_shape, batch, table
    )


def capture_embed(
    model: Model,
    *,
    matcher: Matcher | None,
    input_shape: Sequence[int],
    batch: int | None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
    frozen: Tensor | None = None,
) -> Graph:
    """Like ``capture_predict``, to embeddings [B, d]."""
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    return _capture_infer(
        make_embed(model, matcher=matcher, frozen=frozen), "embedding", model, input_shape, batch, table
    )


def _capture_infer(
    infer: Predict,
    output: str,
    model: Model,
    input_shape: Sequence[int],
    batch: int | None,
    table: Table | None,
) -> Graph:
    theta = model.theta()
    example = (
        theta,
        theta.new_empty(model.prototype_layout.size).normal_(),
        theta.new_empty(batch or 4, *input_shape).normal_(),
        theta.new_ones(()),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (infer(*tensors),)

    if batch:
        return Graph(trace(flat, example, table), PREDICT_INPUTS, (output,), example)
    program = trace_open(flat, example, table)
    module: Any = program.module(check_guards=False)
    return Graph(module, PREDICT_INPUTS, (output,), example, open_batch=True, program=program)


def capture_adapt(
    model: Model,
    *,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
) -> Graph:
    """Local prototypes moved without labels, from ``ADAPT_INPUTS``; see ``fedali.step.make_adapt``."""
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    adapt = make_adapt(model)
    theta, size = model.theta(), model.prototype_layout.size
    example = (
        theta,
        theta.new_empty(size).normal_(),
        theta.new_empty(batch, *input_shape).normal_(),
        theta.new_ones(batch),
        theta.new_empty(size).normal_(),
        theta.new_full((), 0.5),
        theta.new_full((), 0.5),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (adapt(*tensors),)

    return Graph(trace(flat, example, table), ADAPT_INPUTS, ("local_prototypes",), example)


def stack(graph: Graph, clients: int) -> Graph:
    """The graph of a step for many clients at once: inputs of State and Batch get a leading axis [clients], and so do all
    outputs; what the server sent and the numbers are shared.

    Convolutions stack well only as matrix products: capture ``graph`` with ``fedali.capture.decompositions.MATMUL``.
    """
    example = tuple(
        tensor.expand(clients, *tensor.shape).contiguous() if name in PER_CLIENT else tensor
        for name, tensor in zip(graph.inputs, graph.example, strict=True)
    )
    return Graph(trace(over_clients(graph), example, None), graph.inputs, graph.outputs, example)


def over_clients(graph: Graph) -> Callable[..., tuple[Tensor, ...]]:
    """``stack`` for any number of clients, operation by operation."""
    axes = tuple(0 if name in PER_CLIENT else None for name in graph.inputs)
    stacked: Callable[..., tuple[Tensor, ...]] = vmap(graph.module, in_dims=axes)
    return stacked
