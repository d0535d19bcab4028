"""The captured step compiled for this processor; one client a thread, without Python's lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fedali.alp import ALPLayer, Matcher
from fedali.capture.captures import (
    PREDICT_INPUTS,
    STEP_OUTPUTS,
    Graph,
    capture_predict,
    capture_step,
    step_inputs,
)
from fedali.capture.decompositions import CHANNELS_LAST
from fedali.capture.structure import structure_key
from fedali.engines.compiler import compile_graphs
from fedali.engines.loop import Functions, LoopEngine
from fedali.engines.native import NativeGraph
from fedali.recipe import Recipe
from fedali.step import Batch, Hyper, Predict, Shared, State, StepMetrics
from fedali.support.memory import keep_freed


class CompiledEngine(LoopEngine):
    """``LoopEngine`` with its step and its prediction compiled from the captured graphs.

    The last batch of an epoch is filled up to a quarter, half or three quarters of a batch where that holds it: four graphs. Predictions that depend on
    the batch (matched by transport) and the counting of occupancies, which are rare, stay eager.

    Args:
        recipe: how clients train.
        workers: threads.
        dtype: of all numbers.
        cache: folder of compiled graphs; None for the user's cache folder.
    """

    inference_batch = 64

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int = 1,
        dtype: torch.dtype = torch.float32,
        cache: Path | None = None,
    ) -> None:
        keep_freed()
        super().__init__(recipe, workers=workers, dtype=dtype)
        model, method, optimizer, shape = recipe.model, recipe.method, recipe.optimizer, recipe.input_shape
        self._sizes = batch_sizes(model.alp_layers, recipe.batch_size)

        def capture() -> list[Graph]:
            steps = [
                capture_step(
                    model,
                    method,
                    optimizer,
                    input_shape=shape,
                    batch=size,
                    dtype=dtype,
                    table=CHANNELS_LAST,
                    task=recipe.task,
                )
                for size in self._sizes
            ]
            predict = capture_predict(
                model,
                matcher="cosine",
                input_shape=shape,
                batch=self.inference_batch,
                dtype=dtype,
                table=CHANNELS_LAST,
            )
            return [*steps, predict]

        facts = (shape, self._sizes, self.inference_batch, str(dtype))
        libraries = compile_graphs(
            capture, cache, structure_key(model, method, optimizer, *facts, task=recipe.task)
        )
        self._steps = dict(zip(self._sizes, libraries, strict=False))
        self._predict_library = libraries[-1]

    def _make_functions(self) -> Functions:
        eager = super()._make_functions()
        inputs = len(step_inputs(self.recipe.model, self.recipe.method, self.optimizer))
        steps = {
            size: NativeGraph(library, inputs, len(STEP_OUTPUTS)) for size, library in self._steps.items()
        }
        logits = NativeGraph(self._predict_library, len(PREDICT_INPUTS), 1)

        def step(
            state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
        ) -> tuple[State, StepMetrics]:
            found = steps[len(batch.y)]([*state, *batch, *shared, *hyper, *extra])
            return State(*found[:4]), StepMetrics(*found[4:])

        def inductive(theta: Tensor, prototypes: Tensor, x: Tensor, influence: Tensor | float) -> Tensor:
            count = len(x)
            if count < self.inference_batch:
                x = torch.cat([x, x[:1].expand(self.inference_batch - count, *x.shape[1:])])
            influence = torch.as_tensor(influence, dtype=self.dtype)
            return logits([theta, prototypes, x, influence])[0][:count]

        def predict(matcher: Matcher | None) -> Predict:
            independent = matcher == "cosine" or not self.recipe.model.alp_layers
            return inductive if independent else eager.predict(matcher)

        return replace(eager, step=step, predict=predict)


def batch_sizes(layers: Sequence[ALPLayer], size: int, parts: int = 4) -> tuple[int, ...]:
    """Sizes a batch may be filled up to, descending: ``size``, and the multiples of a ``parts``-th of it that change nothing.

    Prototypes that follow several tokens of a batch would follow fewer of a smaller one. Of clients with 40 to 640
    samples, quarters of 64 fill up batches with 4 % more than there is, halves with 8 %, whole ones alone with 16 %.
    """

    def same(smaller: int) -> bool:
        return all(
            layer.update == "single"
            or (
                layer.topk_from == "batch"
                and max(1, smaller // layer.num_prototypes) == max(1, size // layer.num_prototypes)
            )
            for layer in layers
        )

    smaller = {-(-size * part // parts) for part in range(1, parts)}
    return (size, *sorted((one for one in smaller if one < size and same(one)), reverse=True))
