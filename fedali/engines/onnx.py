"""The captured step run by onnxruntime: the graph that devices run; one client a thread, without Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from fedali.alp import Matcher
from fedali.capture.captures import (
    Graph,
    capture_begin,
    capture_finish,
    capture_measure,
    capture_predict,
    capture_step,
)
from fedali.capture.decompositions_onnx import ONNX
from fedali.capture.onnx_cache import exported
from fedali.capture.structure import structure_key
from fedali.capture.unknown import located
from fedali.engines.compiled import batch_sizes
from fedali.engines.loop import Functions, LoopEngine
from fedali.methods.base import begins, finishes
from fedali.recipe import Recipe
from fedali.step import Batch, Hyper, Predict, Shared, State, StepMetrics

_NUMPY = {torch.float32: np.float32, torch.int64: np.int64}


class OnnxEngine(LoopEngine):
    """``LoopEngine`` with its step and its prediction exported to ONNX and run by onnxruntime, in single precision.

    The last batch of an epoch is filled up to half a batch where that holds it: two graphs. Predictions that depend on
    the batch (matched by transport) and the counting of occupancies, which are rare, stay eager.

    Args:
        recipe: how clients train.
        workers: threads.
        cache: folder of exported graphs; None for ``onnx`` in the user's cache folder.
    """

    inference_batch = 64

    def __init__(self, recipe: Recipe, *, workers: int = 1, cache: Path | None = None) -> None:
        super().__init__(recipe, workers=workers)
        model, method, optimizer, shape = recipe.model, recipe.method, recipe.optimizer, recipe.input_shape
        self._sizes = batch_sizes(model.alp_layers, recipe.batch_size, parts=2)

        def step(size: int) -> Graph:
            return capture_step(
                model, method, optimizer, input_shape=shape, batch=size, table=ONNX, task=recipe.task
            )

        def infer() -> Graph:
            batch = self.inference_batch
            return capture_predict(model, matcher="cosine", input_shape=shape, batch=batch, table=ONNX)

        def measure() -> Graph:
            batch = recipe.batch_size
            return capture_measure(
                model, method, input_shape=shape, batch=batch, table=ONNX, task=recipe.task
            )

        captures: dict[str, Callable[[], Graph]] = {
            f"step {size}": partial(step, size) for size in self._sizes
        }
        captures["infer"] = infer
        if begins(method):
            captures["begin"] = lambda: capture_begin(model, method, table=ONNX)
        if recipe.vectors.measured.size:
            captures["measure"] = measure
        if finishes(method):
            captures["finish"] = lambda: capture_finish(model, method, table=ONNX)
        key = structure_key(model, method, optimizer, shape, self.inference_batch, task=recipe.task)
        with located(model, shape):
            self._exported = exported(captures, key, cache)

    def _make_functions(self) -> Functions:
        eager = super()._make_functions()
        step = _Step({size: OnnxGraph(self._exported[f"step {size}"]) for size in self._sizes})
        logits = OnnxGraph(self._exported["infer"])

        def inductive(theta: Tensor, prototypes: Tensor, x: Tensor, influence: Tensor | float) -> Tensor:
            count = len(x)
            if count < self.inference_batch:
                x = torch.cat([x, x[:1].expand(self.inference_batch - count, *x.shape[1:])])
            found = torch.empty(logits.output_shapes[0])
            logits([theta, prototypes, x, torch.as_tensor(influence, dtype=self.dtype)], [found])
            return found[:count]

        def predict(matcher: Matcher | None) -> Predict:
            independent = matcher == "cosine" or not self.recipe.model.alp_layers
            return inductive if independent else eager.predict(matcher)

        after = {
            name: _function(OnnxGraph(self._exported[name]))
            for name in ("begin", "measure", "finish")
            if name in self._exported
        }
        return replace(eager, step=step, predict=predict, **after)


def _function(graph: OnnxGraph) -> Callable[..., Tensor]:
    """A graph of one output, as a function."""

    def call(*inputs: Tensor) -> Tensor:
        found = torch.empty(graph.output_shapes[0])
        graph(inputs, [found])
        return found

    return call


class OnnxGraph:
    """An exported graph in a session of its own; one thread runs it, on one core."""

    def __init__(self, exported: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        outputs = self._session.get_outputs()
        self._outputs = [value.name for value in outputs]
        self._nothing = torch.empty(1)  # memory for what has length 0: a null pointer is refused
        self.output_shapes: list[tuple[int, ...]] = [tuple(value.shape) for value in outputs]

    def __call__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Compute from the memory of ``inputs`` to that of ``outputs``, which must not overlap, in the graph's order."""
        held = [tensor.contiguous() for tensor in inputs]
        binding = self._session.io_binding()
        for names, tensors, bind in (
            (self._inputs, held, binding.bind_input),
            (self._outputs, outputs, binding.bind_output),
        ):
            for name, tensor in zip(names, tensors, strict=True):
                memory = tensor.data_ptr() or self._nothing.data_ptr()
                bind(name, "cpu", 0, _NUMPY[tensor.dtype], list(tensor.shape), memory)
        self._session.run_with_iobinding(binding)


class _Step:
    """The step of one thread. A client's states live in two sets of buffers in turn: a state is overwritten by the
    second step after the one that gave it.
    """

    def __init__(self, graphs: Mapping[int, OnnxGraph]) -> None:
        self._graphs = graphs
        self._last: State | None = None
        self._spare: State | None = None

    def __call__(
        self, state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
    ) -> tuple[State, StepMetrics]:
        goes_on = state is self._last  # else another client begins, and the last one's result stays untouched
        target = self._spare if goes_on else None
        if target is None:
            target = State(*map(torch.empty_like, state))
        metrics = StepMetrics(*torch.empty(len(StepMetrics._fields)).unbind())
        self._graphs[len(batch.y)]([*state, *batch, *shared, *hyper, *extra], [*target, *metrics])
        self._last, self._spare = target, state if goes_on else None
        return target, metrics
