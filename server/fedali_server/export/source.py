"""What becomes a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.data.facts import NO_FACTS, DataFacts
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers.rules import SGD, Adam

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Start:
    """What a device starts from: its own theta [P] and local prototypes [L], and the server's."""

    theta: Vector
    local_prototypes: Vector
    shared_theta: Vector
    shared_prototypes: Vector


@dataclass(frozen=True)
class Source:
    """What becomes a bundle.

    Args:
        name: for people.
        model: the architecture; its weights are not read.
        component: the model's name and options in the registry, and its ALP settings.
        method: what is trained, and how.
        optimizer: of the local training.
        start: parameters and prototypes.
        round: of the federation that ``start`` is from; 0 is before the first.
        decay: of local prototypes.
        normalisation: of raw samples.
        input_shape: of one sample.
        classes: their names.
        data: what another file of the kind needs to give such samples.
    """

    name: str
    model: Model
    component: Component
    method: Method
    optimizer: Adam | SGD
    start: Start
    round: int
    decay: float
    normalisation: BundleNormalisation
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    data: DataFacts = NO_FACTS
