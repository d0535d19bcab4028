"""What a federated method is: what stays personal, the local objective, what is uploaded, how the server aggregates.

The defaults are those of FedAvg; a method overrides what it does differently. Server-side hooks are numpy over flat
vectors; the objective is torch and runs inside the local step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from fedali.aggregation import WeightedSum
from fedali.errors import SettingsError, did_you_mean
from fedali.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.models.base import Output
    from fedali.step import Batch, Parameters

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Layouts:
    """Layouts of a model's parameters (theta) and of one set of its prototypes."""

    parameters: Layout
    prototypes: Layout


@dataclass(frozen=True, eq=False)
class SharedState:
    """What the server owns: theta [P] and global prototypes [L]. Its arrays are not written to.

    The personal part of ``theta`` keeps its initial values: what a new client starts from.
    """

    theta: Vector
    prototypes: Vector


@dataclass(frozen=True)
class Trained:
    """A client after local training: theta [P], local prototypes [L], number of training samples.

    ``occupancy`` [number of prototypes], where a method asked for it: for how many training embeddings each
    prototype answered.
    """

    theta: Vector
    local_prototypes: Vector
    samples: int
    occupancy: Vector | None = None


@dataclass
class Contribution:
    """What a site uploads for all its clients together: weighted sums, and single prototype sets where needed.

    Sums of sites add up to the sum over all clients, so that a server needs memory for one client's worth.
    """

    theta: WeightedSum = field(default_factory=WeightedSum)
    prototypes: WeightedSum = field(default_factory=WeightedSum)
    prototype_sets: list[Vector] = field(default_factory=list)
    set_weights: list[float] = field(default_factory=list)

    def merge(self, other: Contribution) -> None:
        """Add another site's contribution."""
        self.theta.merge(other.theta)
        self.prototypes.merge(other.prototypes)
        self.prototype_sets.extend(other.prototype_sets)
        self.set_weights.extend(other.set_weights)


@dataclass(frozen=True)
class Method:
    """Base of all methods; as it stands it is FedAvg."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    uses_prototypes: ClassVar[bool] = False

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Glob patterns of the parameters that never leave the client."""
        return ()

    @property
    def has_global_model(self) -> bool:
        """Whether the server's model is complete: nothing of it is personal."""
        return not self.personal_parameters

    @property
    def keeps_local_prototypes(self) -> bool:
        """Whether a client starts a round from its own local prototypes instead of the global ones."""
        return False

    @property
    def needs_occupancy(self) -> bool:
        """Whether ``contribute`` needs to know how many embeddings each prototype answered for."""
        return False

    def influence(self, round_: int) -> float:
        """Share of the prototypes in the ALP layers' output in a round (1, 2, ...)."""
        return 0.0

    def objective(self, output: Output, batch: Batch, parameters: Parameters, shared: Parameters) -> Tensor:
        """What a client minimises: the cross-entropy of its batch, unless a method says otherwise."""
        from fedali.step import cross_entropy

        return cross_entropy(output, batch)

    def contribute(self, total: Contribution, client: Trained, shared: SharedState, layouts: Layouts) -> None:
        """Client side: add what the client uploads to its site's total. Personal parameters are left out here."""
        where = shared_indices(self, layouts.parameters)
        if where.size:
            everything = where.size == len(client.theta)
            total.theta.add(client.theta if everything else client.theta[where], client.samples)

    def aggregate(self, total: Contribution, shared: SharedState, layouts: Layouts) -> SharedState:
        """Server side: the next shared state from everything uploaded."""
        theta = shared.theta.copy()
        where = shared_indices(self, layouts.parameters)
        if where.size:
            theta[where] = total.theta.mean()
        return SharedState(theta, shared.prototypes)


@lru_cache(maxsize=64)
def _indices(patterns: tuple[str, ...], layout: Layout) -> npt.NDArray[np.int64]:
    chosen = layout.select(patterns) if patterns else np.empty(0, np.int64)
    chosen.setflags(write=False)
    return chosen


@lru_cache(maxsize=64)
def _other_indices(patterns: tuple[str, ...], layout: Layout) -> npt.NDArray[np.int64]:
    rest = np.setdiff1d(np.arange(layout.size), _indices(patterns, layout), assume_unique=True)
    rest.setflags(write=False)
    return rest


def personal_indices(method: Method, layout: Layout) -> npt.NDArray[np.int64]:
    """Where theta is personal under ``method``: sorted indices."""
    return _indices(method.personal_parameters, layout)


def shared_indices(method: Method, layout: Layout) -> npt.NDArray[np.int64]:
    """Where theta is shared under ``method``: sorted indices, the rest of ``personal_indices``."""
    return _other_indices(method.personal_parameters, layout)


def check_choices(method: Method) -> None:
    """Raise ``SettingsError`` for an option that is none of its ``Literal``'s values."""
    for name, kind in get_type_hints(type(method)).items():
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = getattr(method, name)
        if choices and value not in choices:
            raise SettingsError(f"{name} is {value!r}; {did_you_mean(str(value), choices)}")
