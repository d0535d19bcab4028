"""What a method does as each phase of a client's training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedali.errors import SettingsError
from fedali.methods.base import Method
from fedali.models.base import Model
from fedali.slots import Named
from fedali.step.client import Started
from fedali.step.types import Begin
from fedali.step.vectors import Vectors, filled


def make_begin(model: Model, method: Method) -> Begin:
    """A function that gives a client's vector [P] as a phase of its training starts.

    It takes the client's vector theta [P], the server's vector [P], the client's training samples by class [classes], and the
    phase, 0-d.
    """
    vectors = Vectors(model, method)

    def started(theta: Tensor, shared: Tensor, class_counts: Tensor, phase: int) -> Tensor:
        own, server = Named.of(vectors.whole, theta), Named.of(vectors.whole, shared)
        given = method.begin(Started(own, server, class_counts, phase))
        if phase:
            _check_trained(given, vectors)
        return filled(vectors.whole, given, theta)

    def begin(theta: Tensor, shared: Tensor, class_counts: Tensor, phase: Tensor) -> Tensor:
        with torch.no_grad():
            found = started(theta, shared, class_counts, 0)
            for number in range(1, len(method.phases)):
                later = started(theta, shared, class_counts, number)
                found = torch.where(phase > number - 0.5, later, found)
            return found

    return begin


def _check_trained(given: Mapping[str, Any], vectors: Vectors) -> None:
    known = {name.partition("/")[0] if "/" in name else "model" for name in vectors.trained.names}
    odd = sorted(set(given) - known)
    if odd:
        raise SettingsError(
            f"a method gives {odd[0]!r} as a later phase begins: what is not trained changes before training alone"
        )
