"""The local training step, written once: a pure function over flat vectors.

State and a batch go in, a new state and metrics come out. Nothing here keeps Python-side state, writes in place or
has shapes that depend on data, so the same function can be run eagerly, stacked over clients, compiled, or exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fedali.alp import Alignment, ALPLayer, Matcher, assign, match
from fedali.client_step import ClientStep, Ended
from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods.base import Method
from fedali.models.base import Model, Output
from fedali.models.pooling import eager as running_eagerly
from fedali.optimizers.rules import Optimizer
from fedali.slots import Named, Phase, layout_of, measured_layout, rest_layout, trained_layout
from fedali.task import CLASSIFICATION
from fedali.task import Batch as Batch

Parameters = dict[str, Tensor]


class State(NamedTuple):
    """What training changes: theta [P], the optimizer's moments ([P] or [0]), local prototypes [L], all flat."""

    theta: Tensor
    first_moment: Tensor
    second_moment: Tensor
    local_prototypes: Tensor


class Shared(NamedTuple):
    """What the server sent: its theta [P] and prototypes [L]; constant during a round."""

    theta: Tensor
    prototypes: Tensor


class Hyper(NamedTuple):
    """Numbers that may change from step to step or round to round, as 0-d tensors."""

    step_size: Tensor
    correction: Tensor
    influence: Tensor
    decay: Tensor


class StepMetrics(NamedTuple):
    """Sums over the batch: loss times weight, correct predictions, weight."""

    loss: Tensor
    correct: Tensor
    weight: Tensor


class Step(Protocol):
    """The local step. ``extra`` is ``kept`` [P - T] where the method's slots have such a part, then ``phase``, 0-d, where it
    trains in phases.
    """

    def __call__(
        self, state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
    ) -> tuple[State, StepMetrics]:
        """The next state, and sums over the batch."""
        ...


Occupancy = Callable[[Tensor, Tensor, Tensor, float], Tensor]
Predict = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]
Adapt = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Measure = Callable[..., Tensor]
Finish = Callable[..., Tensor]
_Forward = Callable[[Parameters, Tensor, Batch, Shared, Hyper], tuple[Output, Tensor]]
_Loss = Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]]


class Vectors:
    """How the flat vectors of a model under a method are laid out.

    Args:
        model: the architecture.
        method: has the slots.

    Attributes:
        whole: of a client's vector [P].
        trained: of its beginning [T], which training changes.
        rest: of its end [P - T].
        measured: of the sums after training.
    """

    def __init__(self, model: Model, method: Method) -> None:
        facts = model.facts
        self.model, self.slots = facts.parameters, method.slots
        self.whole = layout_of(facts, method.slots) if method.slots else facts.parameters
        self.trained = trained_layout(self.whole, method.slots)
        self.rest = rest_layout(self.whole, self.trained)
        self.measured = measured_layout(facts, method.slots)


def cross_entropy(output: Output, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy; 0 for a batch of padding alone."""
    return CLASSIFICATION.loss(output, batch)


def make_step(model: Model, method: Method, optimizer: Optimizer, *, eager: bool = False) -> Step:
    """The local step of ``model`` under ``method`` and ``optimizer``.

    The model gives its architecture only; its own weights and prototypes are never read, and left as they are. While
    a step runs the module holds the parameters it is called with: threads need a copy of the model each. An ``eager``
    step is the same step sooner, up to rounding, and can be neither captured nor stacked.
    """
    train_forward, infer = _make_train_forward(model), _make_other_forward(model)
    vectors = Vectors(model, method)

    def forward(
        parameters: Parameters, local: Tensor, batch: Batch, shared: Shared, hyper: Hyper
    ) -> tuple[Output, Tensor]:
        return train_forward(
            parameters, local, batch.x, batch.weights, shared.prototypes, hyper.influence, hyper.decay
        )

    return _make_step(vectors, forward, infer, method, optimizer, eager)


def make_head_step(model: Model, method: Method, optimizer: Optimizer, *, eager: bool = False) -> Step:
    """The local step of the head alone, on embeddings: the body and the prototypes stay as they are.

    Like ``make_step``'s, but theta, the moments and the server's theta are the head's [H] (``Model.head_layout``), and
    x are embeddings [B, d], as ``make_embed`` gives them: computed once, they serve every epoch.

    Raises ``SettingsError`` for a method with slots or phases of its own.
    """
    if method.slots or method.phases:
        raise SettingsError(f"method {method.name!r} trains more than a head: export it with mode 'full'")
    head = _Lent(model.head)

    def run(parameters: Parameters, x: Tensor) -> Output:
        inner = {name.removeprefix("head."): value for name, value in parameters.items()}
        return Output(head(inner, x), x)

    def forward(
        parameters: Parameters, local: Tensor, batch: Batch, shared: Shared, hyper: Hyper
    ) -> tuple[Output, Tensor]:
        return run(parameters, batch.x), local

    def infer(parameters: Parameters, local: Tensor, x: Tensor, influence: Tensor) -> Output:
        return run(parameters, x)

    vectors = Vectors(model, method)
    vectors.whole = vectors.trained = vectors.model = model.head_layout
    vectors.rest = Layout(())
    return _make_step(vectors, forward, infer, method, optimizer, eager)


def _make_step(
    vectors: Vectors,
    forward: _Forward,
    infer: Callable[[Parameters, Tensor, Tensor, Tensor], Output],
    method: Method,
    optimizer: Optimizer,
    eager: bool,
) -> Step:
    """The step that trains the parameters of ``vectors.trained`` through ``forward``."""
    layout = vectors.trained
    named = _by_splitting(layout) if eager else layout.unflatten
    of_server = _latest(_by_splitting(vectors.whole)) if eager else vectors.whole.unflatten
    own_model = set(vectors.model.names)
    more = len(own_model) < len(layout.entries)
    trains = _phase_masks(layout, method.phases)
    has_rest = vectors.rest.size > 0

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
        value = method.objective(ClientStep(output, batch, own, server, other, CLASSIFICATION))
        return value, (moved, CLASSIFICATION.correct(output, batch))

    differentiate = _by_autograd(loss) if eager else _by_transform(loss)

    def step(
        state: State, batch: Batch, shared: Shared, hyper: Hyper, *extra: Tensor
    ) -> tuple[State, StepMetrics]:
        parameters = named(state.theta)
        gradients, (value, (local, correct)) = differentiate(
            parameters, state.local_prototypes, batch, shared, hyper, *extra
        )
        gradient = torch.cat([gradients[name].reshape(-1) for name in layout.names])
        theta, first, second = optimizer.update(
            state.theta, gradient, state.first_moment, state.second_moment, hyper.step_size, hyper.correction
        )
        if trains is not None:
            theta = torch.where(trains(extra[-1]) > 0, theta, state.theta)
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


def make_measure(model: Model, method: Method) -> Measure:
    """A function that gives what a batch adds to the method's sums after training [Q].

    It takes the client's vector theta [P], local prototypes [L], samples x [B, *shape], labels y [B], weights [B], the server's
    vector [P] and influence.
    """
    vectors, infer = Vectors(model, method), _make_other_forward(model)

    def measure(
        theta: Tensor, local: Tensor, x: Tensor, y: Tensor, weights: Tensor, shared: Tensor, influence: Tensor
    ) -> Tensor:
        def other(values: Parameters) -> Output:
            return infer(values, local, x, influence)

        own, server = Named.of(vectors.whole, theta), Named.of(vectors.whole, shared)
        with torch.no_grad():
            step = ClientStep(other(own.model), Batch(x, y, weights), own, server, other, CLASSIFICATION)
            return _flat(vectors.measured, method.measure(step), theta)

    return measure


def make_finish(model: Model, method: Method) -> Finish:
    """A function that gives the end of a client's vector after training [P - T].

    It takes the client's vector theta [P], trained at its beginning, the server's vector [P], the sums [Q], steps, step size
    and samples.
    """
    vectors = Vectors(model, method)

    def finish(theta: Tensor, shared: Tensor, measured: Tensor, *numbers: Tensor) -> Tensor:
        own, server = Named.of(vectors.whole, theta), Named.of(vectors.whole, shared)
        with torch.no_grad():
            found = method.finish(Ended(own, server, Named.of(vectors.measured, measured), *numbers))
            return _flat(vectors.rest, found, theta[..., vectors.trained.size :])

    return finish


def _flat(layout: Layout, slots: Mapping[str, Any], before: Tensor) -> Tensor:
    """The vector of ``layout`` with the values of ``slots``; others are zeros, or as in ``before`` where it has that size."""
    named: Parameters = {}
    for slot, value in slots.items():
        if isinstance(value, Mapping):
            named |= {f"{slot}/{name}": part for name, part in value.items()}
        else:
            named[f"{slot}/"] = value
    odd = sorted(set(named) - set(layout.names))
    if odd:
        raise SettingsError(f"a method gives {odd[0]!r}, which is none of its slots to be given here")
    kept = layout.unflatten(before) if before.shape[-1] == layout.size else {}
    parts = [named.get(e.name, kept.get(e.name, before.new_zeros(e.shape))) for e in layout.entries]
    if not parts:
        return before.new_zeros(0)
    return torch.cat([part.reshape(-1) for part in parts])


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


class _Lent:
    """Calls a module with given parameters in the place of its own; it has its own again afterwards.

    What ``torch.func.functional_call`` does, with the places of the parameters looked up once.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._places: dict[str, list[tuple[dict[str, Any], str]]] = {}
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for inner in module.modules():
            for key, parameter in inner._parameters.items():
                if parameter is not None:  # a parameter that is tied has several places
                    self._places.setdefault(names[id(parameter)], []).append((inner._parameters, key))

    def __call__(self, parameters: Mapping[str, Tensor], *given: Any) -> Any:
        own: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for name, value in parameters.items():
                for held, key in self._places[name]:
                    own.append((held, key, held[key]))
                    held[key] = value
            return self._module(*given)
        finally:
            for held, key, value in own:
                held[key] = value


def _make_other_forward(model: Model) -> Callable[[Parameters, Tensor, Tensor, Tensor], Output]:
    """The output of the model with given parameters on a batch, its local prototypes [L] as they are."""
    prototype_layout, lent = model.prototype_layout, _Lent(model)

    def infer(parameters: Parameters, local: Tensor, x: Tensor, influence: Tensor) -> Output:
        prototypes = list(prototype_layout.unflatten(local).values())
        alignment = Alignment(prototypes, prototypes, training=False, influence=influence, matcher="cosine")
        output: Output = lent(parameters, x, alignment)
        return output

    return infer


def make_predict(model: Model, *, matcher: Matcher | None = None, frozen: Tensor | None = None) -> Predict:
    """A function of theta [P], prototypes [L], samples x [B, *shape] and influence that gives logits [B, classes].

    ``matcher`` replaces the training matcher at inference: ``cosine`` makes a prediction independent of the batch it
    came in (deployment); ``ot`` is the published, transductive one. With ``frozen``, another theta [P], the body has the
    parameters there, as constants; theta gives the head its own.
    """
    infer = _make_infer(model, matcher, frozen)
    return lambda *given: infer(*given).logits


def make_embed(model: Model, *, matcher: Matcher | None = None, frozen: Tensor | None = None) -> Predict:
    """A function like ``make_predict``'s that gives the embeddings [B, d] that logits are computed from."""
    infer = _make_infer(model, matcher, frozen)
    return lambda *given: infer(*given).embedding


def _make_infer(model: Model, matcher: Matcher | None, frozen: Tensor | None) -> Callable[..., Output]:
    parameter_layout, prototype_layout, lent = model.parameter_layout, model.prototype_layout, _Lent(model)
    constants = {} if frozen is None else parameter_layout.unflatten(frozen)
    body = {name: value.clone() for name, value in constants.items() if not name.startswith("head.")}

    def infer(theta: Tensor, prototypes: Tensor, x: Tensor, influence: Tensor | float) -> Output:
        local = list(prototype_layout.unflatten(prototypes).values())
        alignment = Alignment(local, local, training=False, influence=influence, matcher=matcher)
        with torch.no_grad():
            parameters = {**parameter_layout.unflatten(theta), **body}
            output: Output = lent(parameters, x, alignment)
        return output

    return infer


def make_adapt(model: Model) -> Adapt:
    """A function that moves local prototypes [L] as a training step does, without labels and without training.

    It takes theta [P], local prototypes [L], samples x [B, *shape], weights [B], the server's prototypes [L],
    influence and decay.
    """
    parameter_layout, train_forward = model.parameter_layout, _make_train_forward(model)

    def adapt(theta: Tensor, local: Tensor, *given: Tensor) -> Tensor:
        with torch.no_grad():
            return train_forward(parameter_layout.unflatten(theta), local, *given)[1]

    return adapt


def _make_train_forward(model: Model) -> Callable[..., tuple[Output, Tensor]]:
    """The forward pass of training: the output, and the moved local prototypes [L]."""
    prototype_layout, lent = model.prototype_layout, _Lent(model)

    def train_forward(
        parameters: Parameters,
        local: Tensor,
        x: Tensor,
        weights: Tensor,
        shared_prototypes: Tensor,
        influence: Tensor,
        decay: Tensor,
    ) -> tuple[Output, Tensor]:
        alignment = Alignment(
            list(prototype_layout.unflatten(local).values()),
            list(prototype_layout.unflatten(shared_prototypes).values()),
            training=True,
            weights=weights,
            influence=influence,
            decay=decay,
        )
        output: Output = lent(parameters, x, alignment)
        moved = torch.cat([p.reshape(-1) for p in alignment.new_local]) if alignment.new_local else local
        return output, moved

    return train_forward


class _Counting(Alignment):
    """An inference pass that counts the tokens each prototype answers for, by cosine."""

    def __call__(self, layer: ALPLayer, tokens: Tensor) -> Tensor:
        local = self.local[len(self.new_local)]
        aligned = super().__call__(layer, tokens)
        chosen = assign(match(tokens.reshape(-1, layer.dim), local, "cosine"), "cosine")
        counts = torch.zeros(len(local), dtype=tokens.dtype, device=tokens.device)
        self.new_local[-1] = counts.index_add(0, chosen, torch.ones_like(chosen, dtype=tokens.dtype))
        return aligned


def make_occupancy(model: Model) -> Occupancy:
    """A function like ``make_predict``'s that gives, for all layers' prototypes in order, how many embeddings of the
    batch each answers for: the masses of an optimal transport between prototypes.
    """
    parameter_layout, prototype_layout, lent = model.parameter_layout, model.prototype_layout, _Lent(model)

    def occupancy(theta: Tensor, prototypes: Tensor, x: Tensor, influence: float) -> Tensor:
        local = list(prototype_layout.unflatten(prototypes).values())
        alignment = _Counting(local, local, training=False, influence=influence, matcher="cosine")
        with torch.no_grad():
            lent(parameter_layout.unflatten(theta), x, alignment)
        return torch.cat(alignment.new_local)

    return occupancy
