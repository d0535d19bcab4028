"""The local step as one graph: forward, backward, optimizer and prototype update, in aten operations.

What is captured is ``fedali.step`` itself. Engines compile the graph, stack it over clients or export it; there is no
second implementation of the maths. Shapes are fixed, among them the batch, whose samples of weight 0 are padding;
numbers that change between steps and rounds are inputs. Inference alone may leave its batch open.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from fedali.alp import Matcher
from fedali.capture.decompositions import Table
from fedali.capture.graph import Graph as Graph
from fedali.capture.graph import trace, trace_open
from fedali.methods.base import Method
from fedali.models import Model
from fedali.optimizers.rules import Optimizer
from fedali.step import (
    Hyper,
    Predict,
    Shared,
    State,
    Step,
    Vectors,
    make_adapt,
    make_begin,
    make_embed,
    make_finish,
    make_gated,
    make_head_step,
    make_measure,
    make_predict,
    make_step,
)
from fedali.targets import Kind
from fedali.task import Batch
from fedali.tasks import CLASSIFICATION, Task

# Of a step, before "kept" and "phase" where a method has them, and what the optimizer takes besides.
STEP_INPUTS = (
    *(*State._fields, *Batch._fields),
    *(f"shared_{name}" for name in Shared._fields),
    *Hyper._fields,
)
STEP_OUTPUTS = (*State._fields, "loss", "correct", "weight")
PREDICT_INPUTS = ("theta", "local_prototypes", "x", "influence")
GATED_INPUTS = (
    *("theta", "shared_theta", "own", "everyone", "middle", "spread"),
    *("local_prototypes", "shared_prototypes", "x", "influence"),
)
ADAPT_INPUTS = ("theta", "local_prototypes", "x", "weights", "shared_prototypes", "influence", "decay")
BEGIN_INPUTS = ("theta", "shared_theta", "class_counts", "phase")
MEASURE_INPUTS = ("theta", "local_prototypes", "x", "y", "weights", "shared_theta", "influence")
FINISH_INPUTS = ("theta", "shared_theta", "measured", "steps", "step_size", "samples")
PER_CLIENT = (
    *State._fields,
    *Batch._fields,
    "kept",
)  # what differs between stacked clients; the rest they share


def step_inputs(model: Model, method: Method, optimizer: Optimizer) -> tuple[str, ...]:
    """Of a captured step: ``STEP_INPUTS``, ``kept`` and ``phase`` where the method has them, and the optimizer's ``inputs``."""
    kept = ("kept",) if Vectors(model, method).rest.size else ()
    return (*STEP_INPUTS, *kept, *(("phase",) if method.phases else ()), *optimizer.inputs)


def capture_step(
    model: Model,
    method: Method,
    optimizer: Optimizer,
    *,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
    task: Task = CLASSIFICATION,
) -> Graph:
    """One local step, from ``STEP_INPUTS`` to ``STEP_OUTPUTS``.

    Args:
        model: the architecture; its weights are not read.
        method: its objective, slots and phases.
        optimizer: its update is part of the graph.
        input_shape: of one sample.
        batch: B, fixed.
        dtype: of all floating-point inputs.
        device: the graph runs on.
        table: rewrites of operations, from ``fedali.capture.decompositions``.
        task: its loss is part of the graph.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    vectors, theta = Vectors(model, method), model.theta()
    x = _samples(model, batch, input_shape, theta)
    theta = torch.cat([theta, theta.new_zeros(vectors.trained.size - theta.numel())])
    extra = {"kept": theta.new_zeros(vectors.rest.size)} if vectors.rest.size else {}
    if method.phases:
        extra["phase"] = theta.new_zeros(())
    whole = theta.new_zeros(vectors.whole.size) if vectors.rest.size else theta.clone()
    step = make_step(model, method, optimizer, task=task)
    return _capture_step(step, model, theta, optimizer, x, table, task, whole, extra)


def capture_head_step(
    model: Model,
    method: Method,
    optimizer: Optimizer,
    *,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    table: Table | None = None,
    task: Task = CLASSIFICATION,
) -> Graph:
    """One local step of the head alone, see ``fedali.step.make_head_step``; arguments as for ``capture_step``.

    Inputs and outputs are those of ``capture_step``, where theta, moments and the server's theta are the head's [H], x are
    embeddings [B, d], and what concerns prototypes is not read.
    """
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    sample = _samples(model, 1, input_shape, model.theta())
    prototypes = torch.ones(model.prototype_layout.size, dtype=dtype, device=device)
    embedding = make_embed(model, matcher="cosine")(model.theta(), prototypes, sample, 0.0)
    x = torch.randn(batch, embedding.shape[1], dtype=dtype, device=device)
    theta = torch.cat([p.detach().reshape(-1) for p in model.head.parameters()])
    step = make_head_step(model, method, optimizer, task=task)
    return _capture_step(step, model, theta, optimizer, x, table, task)


def _capture_step(
    step: Step,
    model: Model,
    theta: Tensor,
    optimizer: Optimizer,
    x: Tensor,
    table: Table | None,
    task: Task,
    whole: Tensor | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Graph:
    local = theta.new_empty(model.prototype_layout.size).normal_()
    y = task.blank(theta.new_empty(len(x), 1), model.facts.classes)
    numbers = (theta.new_full((), 0.5) for _ in Hyper._fields)
    extra = {**(extra or {}), **{name: theta.new_ones(()) for name in optimizer.inputs}}
    example = (
        *State(theta, *optimizer.initial(theta), local),
        *Batch(x, y, theta.new_ones(len(x))),
        *Shared(theta.clone() if whole is None else whole, local.clone()),
        *Hyper(*numbers),
        *extra.values(),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        parts, first = [], 0
        for kind in (State, Batch, Shared, Hyper):
            size = len(kind._fields)
            parts.append(kind(*tensors[first : first + size]))
            first += size
        state, metrics = step(*parts, *tensors[first:])  # type: ignore[arg-type]
        return (*state, *metrics)

    return Graph(trace(flat, example, table), (*STEP_INPUTS, *extra), STEP_OUTPUTS, example)


def capture_begin(
    model: Model, method: Method, *, dtype: torch.dtype = torch.float32, table: Table | None = None
) -> Graph:
    """A client's vector as a phase of its training starts, from ``BEGIN_INPUTS``; see ``fedali.step.make_begin``."""
    model = copy.deepcopy(model).to(dtype=dtype)
    begin, theta = make_begin(model, method), _whole(model, method)
    example = (theta, theta.clone(), theta.new_ones(model.facts.classes), theta.new_zeros(()))

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (begin(*tensors).clone(),)

    return Graph(trace(flat, example, table), BEGIN_INPUTS, ("theta",), example)


def capture_measure(
    model: Model,
    method: Method,
    *,
    input_shape: Sequence[int],
    batch: int,
    dtype: torch.dtype = torch.float32,
    table: Table | None = None,
    task: Task = CLASSIFICATION,
) -> Graph:
    """What a batch adds to the method's sums after training, from ``MEASURE_INPUTS``; see ``fedali.step.make_measure``."""
    model = copy.deepcopy(model).to(dtype=dtype)
    measure, theta = make_measure(model, method, task), _whole(model, method)
    x = _samples(model, batch, input_shape, theta)
    example = (
        theta,
        theta.new_empty(model.prototype_layout.size).normal_(),
        x,
        task.blank(theta.new_empty(batch, 1), model.facts.classes),
        theta.new_ones(batch),
        theta.clone(),
        theta.new_ones(()),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (measure(*tensors),)

    return Graph(trace(flat, example, table), MEASURE_INPUTS, ("measured",), example)


def capture_finish(
    model: Model, method: Method, *, dtype: torch.dtype = torch.float32, table: Table | None = None
) -> Graph:
    """The end of a client's vector after training, from ``FINISH_INPUTS``; see ``fedali.step.make_finish``."""
    model = copy.deepcopy(model).to(dtype=dtype)
    finish, theta = make_finish(model, method), _whole(model, method)
    measured = theta.new_ones(Vectors(model, method).measured.size)
    example = (theta, theta.clone(), measured, *(theta.new_ones(()) for _ in range(3)))

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (finish(*tensors).clone(),)

    return Graph(trace(flat, example, table), FINISH_INPUTS, ("kept",), example)


def _samples(model: Model, batch: int, shape: Sequence[int], like: Tensor) -> Tensor:
    """An example of what the model takes [batch, *shape], of the dtype and device of ``like``, or ids of tokens."""
    if model.takes_tokens:
        return torch.zeros(batch, *shape, dtype=torch.int64, device=like.device)
    return like.new_empty(batch, *shape).normal_()


def _whole(model: Model, method: Method) -> Tensor:
    theta = model.theta()
    return torch.cat([theta, theta.new_zeros(Vectors(model, method).whole.size - theta.numel())])


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
        _samples(model, batch or 4, input_shape, theta),
        theta.new_ones(()),
    )

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (infer(*tensors),)

    return _capture_open(flat, PREDICT_INPUTS, (output,), example, batch, table)


def capture_gated(
    model: Model,
    *,
    matcher: Matcher | None,
    input_shape: Sequence[int],
    batch: int | None,
    prototypes: int,
    table: Table | None = None,
    kind: Kind = "classes",
) -> Graph:
    """An answer by the gate, from ``GATED_INPUTS`` to logits [B, classes] and weight [B], see ``fedali.step.make_gated``.

    ``prototypes`` is K, of the client's own and of everyone's alike, ``kind`` what is answered; other arguments are those of
    ``capture_predict``.
    """
    model = copy.deepcopy(model).to("cpu", torch.float32)
    gated, theta = make_gated(model, matcher=matcher, kind=kind), model.theta()
    local = theta.new_empty(model.prototype_layout.size).normal_()
    own = theta.new_empty(prototypes, model.facts.embedding).normal_()
    example = (
        *(theta, theta.clone(), own, own.clone(), theta.new_zeros(()), theta.new_ones(())),
        *(local, local.clone(), _samples(model, batch or 4, input_shape, theta), theta.new_ones(())),
    )
    return _capture_open(gated, GATED_INPUTS, ("logits", "weight"), example, batch, table)


def _capture_open(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    example: tuple[Tensor, ...],
    batch: int | None,
    table: Table | None,
) -> Graph:
    """The graph of inference, whose batch is open where there is none."""
    if batch:
        return Graph(trace(function, example, table), inputs, outputs, example)
    program = trace_open(function, inputs, example, table)
    module: Any = program.module(check_guards=False)
    return Graph(module, inputs, outputs, example, open_batch=True, program=program)


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
        _samples(model, batch, input_shape, theta),
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
