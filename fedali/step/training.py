"""The step itself: forward, backward, optimizer and prototype update, as a pure function over flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods.base import Method
from fedali.models.base import Model, Output
from fedali.models.pooling import eager as running_eagerly
from fedali.optimizers.rules import Optimizer
from fedali.slots import Named, Phase, Slot, slot_slice
from fedali.step.client import ClientStep
from fedali.step.forward import make_head, make_other_forward, make_train_forward
from fedali.step.gradients import clipped, gradient_by_autograd, gradient_by_transform
from fedali.step.types import Hyper, Parameters, Shared, State, Step, StepMetrics
from fedali.step.vectors import Vectors
from fedali.task import Batch
from fedali.tasks import CLASSIFICATION, Task

_Forward = Callable[[Parameters, Tensor, Batch, Shared, Hyper], tuple[Output, Tensor]]
_Loss = Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]]


def make_step(
    model: Model,
    method: Method,
    optimizer: Optimizer,
    *,
    eager: bool = False,
    task: Task = CLASSIFICATION,
) -> Step:
    """The local step of ``model`` under ``method`` and ``optimizer``, which learns ``task``.

    The model gives its architecture only; its own weights and prototypes are never read, and left as they are. While
    a step runs the module holds the parameters it is called with: threads need a copy of the model each. An ``eager``
    step is the same step sooner, up to rounding, and can be neither captured nor stacked.
    """
    train_forward, infer, head = make_train_forward(model), make_other_forward(model), make_head(model)
    vectors = Vectors(model, method)

    def forward(
        parameters: Parameters, local: Tensor, batch: Batch, shared: Shared, hyper: Hyper
    ) -> tuple[Output, Tensor]:
        return train_forward(
            parameters, local, batch.x, batch.weights, shared.prototypes, hyper.influence, hyper.decay
        )

    return _make_step(vectors, forward, infer, head, method, optimizer, eager, task)


def make_head_step(
    model: Model,
    method: Method,
    optimizer: Optimizer,
    *,
    eager: bool = False,
    task: Task = CLASSIFICATION,
) -> Step:
    """The local step of the head alone, on embeddings: the body and the prototypes stay as they are.

    Like ``make_step``'s, but theta, the moments and the server's theta are the head's [H] (``Model.head_layout``), and
    x are embeddings [B, d], as ``make_embed`` gives them: computed once, they serve every epoch.

    Raises ``SettingsError`` for a method with slots or phases of its own.
    """
    if method.slots or method.phases:
        raise SettingsError(
            f"method {method.name!r} keeps or trains more than a head: export it with mode 'full'"
        )
    run = make_head(model)

    def forward(
        parameters: Parameters, local: Tensor, batch: Batch, shared: Shared, hyper: Hyper
    ) -> tuple[Output, Tensor]:
        return run(parameters, batch.x), local

    def infer(parameters: Parameters, local: Tensor, x: Tensor, influence: Tensor) -> Output:
        return run(parameters, x)

    vectors = Vectors(model, method)
    vectors.whole = vectors.trained = vectors.model = model.head_layout
    vectors.rest = Layout(())
    return _make_step(vectors, forward, infer, run, method, optimizer, eager, task)


def _make_step(
    vectors: Vectors,
    forward: _Forward,
    infer: Callable[[Parameters, Tensor, Tensor, Tensor], Output],
    head: Callable[[Parameters, Tensor], Output],
    method: Method,
    optimizer: Optimizer,
    eager: bool,
    task: Task,
) -> Step:
    """The step that trains the parameters of ``vectors.trained`` through ``forward``."""
    layout = vectors.trained
    named = _by_splitting(layout) if eager else layout.unflatten
    of_server = _latest(_by_splitting(vectors.whole)) if eager else vectors.whole.unflatten
    own_model = set(vectors.model.names)
    more = len(own_model) < len(layout.entries)
    trains = _phase_masks(layout, method.phases)
    apart = [(s.descent, slot_slice(layout, s.name)) for s in method.slots if s.descent is not None]
    by_optimizer = _by_optimizer(layout, method.slots)
    has_rest = vectors.rest.size > 0
    place, more_inputs = (
        int(has_rest),
        len(optimizer.inputs),
    )  # in ``extra``: the phase's, and how many are last
    inner_gradient = gradient_by_autograd if eager else gradient_by_transform

    def loss(
        parameters: Parameters,
        local: Tensor,
        batch: Batch,
        shared: Shared,
        hyper: Hyper,
        *extra: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mine = {name: parameters[name] for name in vectors.model.names} if more else parameters
        output, moved = forward(mine, local, batch, shared, hyper)

        def everything() -> Parameters:
            return {**parameters, **vectors.rest.unflatten(extra[0])} if has_rest else parameters

        def other(values: Parameters) -> Output:
            return infer(values, local, batch.x, hyper.influence)

        own, server = Named(everything), Named(lambda: of_server(shared.theta))
        view = ClientStep(*(output, batch, own, server, other, head, inner_gradient, task), hyper.step_size)
        value = method.objective(view)
        return value, (moved, task.correct(output, batch))

    differentiate = _by_autograd(loss) if eager else _by_transform(loss)

    def step(
        state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
    ) -> tuple[State, StepMetrics]:
        parameters = named(state.theta)
        gradients, (value, (local, correct)) = differentiate(
            parameters, state.local_prototypes, batch, shared, hyper, *extra
        )
        gradient = torch.cat([gradients[name].reshape(-1) for name in layout.names])
        taken = gradient
        if optimizer.clip_norm:
            if trains is not None:  # what stands still has no gradient
                taken = torch.where(trains(extra[place]) > 0, taken, torch.zeros_like(taken))
            taken = clipped(taken, by_optimizer, optimizer.clip_norm)
        theta, first, second = optimizer.update(
            *(state.theta, taken, state.first_moment, state.second_moment),
            *(hyper.step_size, hyper.correction, *extra[len(extra) - more_inputs :]),
        )
        for how, where in apart:
            moved = (state.theta[where] - how.rate * gradient[where]).clamp(how.least, how.most)
            theta = torch.cat([theta[: where.start], moved, theta[where.stop :]])
        if trains is not None:
            theta = torch.where(trains(extra[place]) > 0, theta, state.theta)
        weight = batch.weights.sum()
        return State(theta, first, second, local), StepMetrics(value * weight, correct, weight)

    return step


def _phase_masks(layout: Layout, phases: tuple[Phase, ...]) -> Callable[[Tensor], Tensor] | None:
    """A function of the phase, 0-d, that gives 1 where it trains the vector [T], and 0 elsewhere; None without phases."""
    if not phases:
        return None
    for number, phase in enumerate(phases):
        if not any(name in phase for name in layout.names):
            raise SettingsError(f"phase {number} trains nothing: no parameter matches {phase.trains}")

    def mask(now: Tensor) -> Tensor:
        is_now = [(1.0 - (now - number).abs()).clamp(min=0.0) for number in range(len(phases))]
        parts = []
        for entry in layout.entries:
            here = [is_now[number] for number, phase in enumerate(phases) if entry.name in phase]
            share = torch.stack(here).sum() if here else torch.zeros_like(now)
            parts.append(share.expand(entry.size))
        return torch.cat(parts)

    return mask


def _by_optimizer(layout: Layout, slots: tuple[Slot, ...]) -> list[slice]:
    """Where in the vector [T] what the optimizer trains lies: the model, and each trained slot that has no descent of its own."""
    own = [slot_slice(layout, s.name) for s in slots if s.trained and s.descent is None]
    return [slot_slice(layout, ""), *sorted(own, key=lambda where: where.start)]


def _by_splitting(layout: Layout) -> Callable[[Tensor], Parameters]:
    """``layout.unflatten`` in fewer calls, for code that is not captured."""
    sizes = [entry.size for entry in layout.entries]
    entries = [(entry.name, entry.shape) for entry in layout.entries]

    def named(flat: Tensor) -> Parameters:
        parts = zip(entries, flat.split_with_sizes(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    return named


def _latest(named: Callable[[Tensor], Parameters]) -> Callable[[Tensor], Parameters]:
    """``named``, looked up once while it is asked for the same tensor: the server's is, all through a client's training."""
    known: list[tuple[Tensor, Parameters]] = []

    def remembered(flat: Tensor) -> Parameters:
        if not known or known[0][0] is not flat:
            known[:] = [(flat, named(flat))]
        return known[0][1]

    return remembered


def _by_transform(loss: _Loss) -> Callable[..., Any]:
    """Gradients by parameter, and what ``loss`` gives: a transform that can be traced and stacked."""
    from torch.func import grad_and_value  # its first call loads torch's compiler, which takes a second

    return grad_and_value(loss, has_aux=True)


def _by_autograd(loss: _Loss) -> Callable[..., Any]:
    """The same by the autograd engine itself, without what a transform adds to every operation.

    Last bits differ: a transform may be differentiated again, for which torch derives norms in other operations.
    """

    def differentiate(parameters: Parameters, *given: Any) -> Any:
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad(), running_eagerly():
            value, seen = loss(leaves, *given)
        gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True)), (
            value.detach(),
            tuple(part.detach() for part in seen),
        )

    return differentiate
