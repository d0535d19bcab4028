"""Forward passes of a model with given parameters: in training, for predictions, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedali.alp import Alignment, ALPLayer, Matcher, assign, match
from fedali.answers.gate import SMALLEST
from fedali.models.base import Model, Output
from fedali.step.types import Adapt, Gated, Occupancy, Parameters, Predict
from fedali.targets import Kind

_LEAST = 1e-30  # of a probability, before its logarithm


class Lent:
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
        """What the module gives, with ``parameters`` in the place of its own."""
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


def make_other_forward(model: Model) -> Callable[[Parameters, Tensor, Tensor, Tensor], Output]:
    """The output of the model with given parameters on a batch, its local prototypes [L] as they are."""
    prototype_layout, lent = model.prototype_layout, Lent(model)

    def infer(parameters: Parameters, local: Tensor, x: Tensor, influence: Tensor) -> Output:
        prototypes = list(prototype_layout.unflatten(local).values())
        alignment = Alignment(prototypes, prototypes, training=False, influence=influence, matcher="cosine")
        output: Output = lent(parameters, x, alignment)
        return output

    return infer


def make_head(model: Model) -> Callable[[Parameters, Tensor], Output]:
    """The output of the head alone, with the parameters of a model, on embeddings [B, d]."""
    lent = Lent(model.head)

    def run(parameters: Parameters, embedding: Tensor) -> Output:
        inner = {name.removeprefix("head."): v for name, v in parameters.items() if name.startswith("head.")}
        return Output(lent(inner, embedding), embedding)

    return run


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


def make_output(model: Model, *, matcher: Matcher | None = None) -> Callable[..., Output]:
    """A function like ``make_predict``'s that gives both logits and embeddings."""
    return _make_infer(model, matcher, None)


def make_gated(model: Model, *, matcher: Matcher | None = None, kind: Kind = "classes") -> Gated:
    """A function that answers by the gate (``fedali.answers.gate``): outputs [B, T] that say what both models' answers, mixed, say, and the
    weight [B] of the personal ones. Of classes these are the logarithms of the mixed probabilities.

    It takes theta [P] of the personal model and of the shared one, own prototypes [K, d] and everyone's [K', d], middle and spread of the
    score, prototypes [L] of both models, samples x [B, *shape] and influence.
    """
    infer = _make_infer(model, matcher, None)

    def gated(
        theta: Tensor,
        shared_theta: Tensor,
        own: Tensor,
        everyone: Tensor,
        middle: Tensor,
        spread: Tensor,
        prototypes: Tensor,
        shared_prototypes: Tensor,
        x: Tensor,
        influence: Tensor,
    ) -> tuple[Tensor, Tensor]:
        personal = infer(theta, prototypes, x, influence).logits
        shared = infer(shared_theta, shared_prototypes, x, influence)
        near, far = (_log_distance(shared.embedding, centres) for centres in (own, everyone))
        weight = torch.sigmoid((middle - (near - far)) / spread).reshape(-1)
        share = weight.unsqueeze(1)
        return _mixed(kind, share, personal, shared.logits), weight

    return gated


def _mixed(kind: Kind, share: Tensor, personal: Tensor, shared: Tensor) -> Tensor:
    """Outputs [B, T] of which ``fedali.targets.shares`` gives the mixture, ``share`` [B, 1] being the personal part."""
    if kind == "numbers":
        return share * personal + (1 - share) * shared
    if kind == "labels":
        there = share * torch.sigmoid(personal) + (1 - share) * torch.sigmoid(shared)
        absent = share * torch.sigmoid(-personal) + (1 - share) * torch.sigmoid(-shared)
        return torch.log(there.clamp(min=_LEAST)) - torch.log(absent.clamp(min=_LEAST))
    mixed = share * torch.softmax(personal, 1) + (1 - share) * torch.softmax(shared, 1)
    return torch.log(mixed.clamp(min=_LEAST))


def _log_distance(embeddings: Tensor, centres: Tensor) -> Tensor:
    """Logarithm of the distance of each embedding [B, d] to the nearest centre [K, d]: [B]. The square is not expanded: it would lose digits."""
    apart = embeddings.unsqueeze(1) - centres.unsqueeze(0)
    return torch.log((apart * apart).sum(2).amin(1).clamp(min=SMALLEST**2)) / 2


def _make_infer(model: Model, matcher: Matcher | None, frozen: Tensor | None) -> Callable[..., Output]:
    parameter_layout, prototype_layout, lent = model.parameter_layout, model.prototype_layout, Lent(model)
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
    parameter_layout, train_forward = model.parameter_layout, make_train_forward(model)

    def adapt(theta: Tensor, local: Tensor, *given: Tensor) -> Tensor:
        with torch.no_grad():
            return train_forward(parameter_layout.unflatten(theta), local, *given)[1]

    return adapt


def make_train_forward(model: Model) -> Callable[..., tuple[Output, Tensor]]:
    """The forward pass of training: the output, and the moved local prototypes [L]."""
    prototype_layout, lent = model.prototype_layout, Lent(model)

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
    parameter_layout, prototype_layout, lent = model.parameter_layout, model.prototype_layout, Lent(model)

    def occupancy(theta: Tensor, prototypes: Tensor, x: Tensor, influence: float) -> Tensor:
        local = list(prototype_layout.unflatten(prototypes).values())
        alignment = _Counting(local, local, training=False, influence=influence, matcher="cosine")
        with torch.no_grad():
            lent(parameter_layout.unflatten(theta), x, alignment)
        return torch.cat(alignment.new_local)

    return occupancy
