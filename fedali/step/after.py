"""What a method does after a client's training: sums over its samples, and new values of slots."""

from __future__ import annotations

import torch
from torch import Tensor

from fedali.methods.base import Method
from fedali.models.base import Model, Output
from fedali.slots import Named
from fedali.step.client import ClientStep, Ended
from fedali.step.forward import make_head, make_other_forward
from fedali.step.gradients import gradient_by_transform
from fedali.step.types import Finish, Measure, Parameters
from fedali.step.vectors import Vectors, filled
from fedali.task import Batch
from fedali.tasks import CLASSIFICATION, Task


def make_measure(model: Model, method: Method, task: Task = CLASSIFICATION) -> Measure:
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
                *(other, head, gradient_by_transform, task),
            )
            return filled(vectors.measured, method.measure(step), theta)

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
            return filled(vectors.rest, found, theta[..., vectors.trained.size :])

    return finish
