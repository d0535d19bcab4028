"""pFedMe (Dinh et al., NeurIPS 2020, arXiv 2006.08848): personal models by Moreau envelopes.

The shared model w minimises the clients' envelopes ``min_t F_i(t) + lambda/2 ||t - w||^2`` (equations 2, 3); t is the client's personal
model, and answers. One local step, on one batch (algorithm 1):

1. K gradient steps on t with w held: ``t <- t - eta (grad F_i(t) + lambda (t - w))``; t goes on from where the last step left it.
2. One on w, along the envelope's gradient: ``w <- w - eta lambda (w - t)``.

The server moves by ``beta`` of the way to the mean of the clients' w. In step 1 the K gradients are taken inside the objective, whose gradient
by t is their sum: with SGD without momentum t and w end where the algorithm says, eta being the one step size for both. Another optimizer
takes both gradients in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Layouts, Method, SharedState, Upload, check_at_least, check_count
from fedali.slots import Slot, slot_slice

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep
    from fedali.step.types import Parameters


@dataclass(frozen=True)
class PFedMe(Method):
    """A shared model that learns from personal ones, which are held near it.

    Args:
        strength: lambda.
        inner_steps: K; each is a gradient on the batch.
        server_step: beta, how far the server goes towards the mean.
    """

    name: ClassVar[str] = "pfedme"
    summary: ClassVar[str] = "personal models near a shared one, which follows them (Moreau envelopes)"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("personal", "kept", starts="model", trained=True),)
    answer_slot: ClassVar[str] = "personal"

    strength: float = 15.0
    inner_steps: int = 5
    server_step: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, strength=self.strength, server_step=self.server_step)
        check_count(1, inner_steps=self.inner_steps)

    def objective(self, step: ClientStep) -> Tensor:
        """The envelope at the personal model the step begins with; gradients as above."""
        from fedali.step.client import squared_distance

        assert step.step_size is not None
        model, personal = step.own.model, step.own["personal"]
        centre = {name: value.detach() for name, value in model.items()}

        def envelope(at: Parameters) -> Tensor:
            return step.loss(step.forward(at)) + self.strength / 2 * squared_distance(at, centre)

        now = {name: value.detach() for name, value in personal.items()}
        slope, begin = step.gradient(envelope, now)
        total = slope
        for _ in range(1, self.inner_steps):
            now = {name: value - step.step_size * slope[name] for name, value in now.items()}
            slope, _ = step.gradient(envelope, now)
            total = {name: value + slope[name] for name, value in total.items()}
        now = {name: value - step.step_size * slope[name] for name, value in now.items()}
        surrogate = self.strength / 2 * squared_distance(model, now)
        for name, value in total.items():
            surrogate = surrogate + (personal[name] * value).sum()
        return begin + surrogate - surrogate.detach()

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """Towards the mean."""
        new = super().aggregate(total, shared, layouts)
        where = slot_slice(layouts.parameters, "")
        before = shared.theta[where]
        new.theta[where] = before + self.server_step * (new.theta[where] - before)
        return new
