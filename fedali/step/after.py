"""What a method does after a client's training: sums over its samples, and new values of slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods.base import Method
from fedali.models.base import Model, Output
from fedali.slots import Named
from fedali.step.client import ClientStep, Ended
from fedali.step.forward import make_head, make_other_forward
from fedali.step.gradients import gradient_by_transform
from fedali.step.types import Finish, Measure, Parameters
from fedali.step.vectors import Vectors
from fedali.task import CLASSIFICATION, Batch


def make_measure(model: Model, method: Method) -> Measure:
    """A function that gives what a batch adds to the method's sums after training [Q].

    It takes the client's vector theta [P], local prototypes [L], samples x [B, *shape], labels y [B], weights [B], the server's
    vector [P] and influence.
    """
    vectors, infer, head = Vectors(model, method), make_other_forward(model), make_head(model)

    def measure(
        theta: Tensor, local: Tensor, x: Tensor, y: Tensor, weights: Tensor, shared: Tensor, influence: Tensor
    ) -> Tensor:
        def other(values: Parameters) -> Output:
            return infer(values, local, x, influence)

        own, server = Named.of(vectors.whole, theta), Named.of(vectors.whole, shared)
        with torch.no_grad():
            step = ClientStep(
                *(other(own.model), Batch(x, y, weights), own, server),
                *(other, head, gradient_by_transform, CLASSIFICATION),
            )
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
