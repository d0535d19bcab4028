"""How the flat vectors of a model under a method are laid out."""

from __future__ import annotations

from fedali.errors import SettingsError
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
