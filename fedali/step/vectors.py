"""How the flat vectors of a model under a method are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.methods.base import Method, finishes
from fedali.models.base import Model
from fedali.slots import layout_of, measured_layout, rest_layout, trained_layout


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
        if finishes(method) and not self.rest.size:
            raise SettingsError(
                f"method {type(method).__name__} has a finish, and no slot for it to fill: one that is shared or kept, and not trained"
            )


def filled(layout: Layout, slots: Mapping[str, Any], before: Tensor) -> Tensor:
    """The vector of ``layout`` with the values of ``slots``; others are zeros, or as in ``before`` where it has that size.

    ``"model"`` are the model's parameters.
    """
    named: dict[str, Tensor] = {}
    for slot, value in slots.items():
        if isinstance(value, Mapping):
            prefix = "" if slot == "model" else f"{slot}/"
            named |= {f"{prefix}{name}": part for name, part in value.items()}
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
