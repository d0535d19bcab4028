"""FedAli as published (Ek et al., arXiv 2411.10595): federated learning of personalised models by alignment with prototypes.

One round, as in the paper:

1. The server sends its weights and, for each ALP layer, its global prototypes G.
2. A client copies them; its local prototypes L start from G.
3. It trains on its data. In each forward pass an ALP layer (``fedali.alp``) matches its embeddings with [L; G] by a
   transport plan, pulls them towards the matched G, and moves L towards the embeddings.
4. It sends its weights and L.
5. The server averages the weights, and makes new G of the clients' L.

In the first round the prototypes are still random, and do not pull (influence 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedali.aggregation import kmeans, ot_aggregate
from fedali.errors import SettingsError
from fedali.methods.base import Layouts, Method, Vector, check_choices
from fedali.slots import PrototypeUpload
from fedali.transport.plans import Solver
from fedali.uploads import SharedState, Upload


@dataclass(frozen=True)
class FedAliPaper(Method):
    """Weights are averaged; local prototypes are aligned and made the next global ones.

    Args:
        personal: ``"none"`` as published: all weights are shared; or ``"head"``: the head stays on the client, as in FedPer.
        aggregation: how global prototypes are made of local ones. ``"ot"``: each client's set is aligned with the
            global set by optimal transport, then averaged. ``"kmeans"``: as published, the centres of all clients'
            prototypes together. ``"mean"``: the mean by index.
        masses: of a client's prototypes under ``"ot"``: ``"uniform"``, or ``"occupancy"``: how many of its embeddings
            each prototype answered for.
        solver: of the transport, see ``fedali.transport.plans.transport_plan``. ``"auto"`` with occupancies is ``"unbalanced"``:
            against a uniform reference a balanced plan of uneven masses blurs (half of a row's norm, measured).
        barycentre_iterations: under ``"ot"``, how often to align all sets again with their own mean: a free-support
            Wasserstein barycentre. It needs all sets at the server, where 0 needs their sum alone.
        local_prototypes: ``"reset"`` to the global ones at the start of each round, as published, or ``"keep"``.
        strength: share of the prototypes in the ALP layers' output, after the first ``warmup`` rounds.
        warmup: rounds without influence.
    """

    name: ClassVar[str] = "fedali-paper"
    summary: ClassVar[str] = (
        "as published: embeddings pulled towards prototypes that the server aligns by optimal transport"
    )
    uses_prototypes: ClassVar[bool] = True

    personal: Literal["none", "head"] = "none"
    aggregation: Literal["ot", "kmeans", "mean"] = "ot"
    masses: Literal["uniform", "occupancy"] = "uniform"
    solver: Solver = "auto"
    barycentre_iterations: int = 0
    local_prototypes: Literal["reset", "keep"] = "reset"
    strength: float = 0.2
    warmup: int = 1

    def __post_init__(self) -> None:
        check_choices(self)
        if not isinstance(self.strength, int | float) or not 0 <= self.strength <= 1:
            raise SettingsError(f"strength is {self.strength!r}, it has to be a number from 0 to 1")
        for name, value in (("warmup", self.warmup), ("barycentre_iterations", self.barycentre_iterations)):
            if not isinstance(value, int) or value < 0:
                raise SettingsError(f"{name} is {value!r}, it has to be a whole number of at least 0")
        if self.barycentre_iterations and (self.aggregation != "ot" or self.masses != "uniform"):
            raise SettingsError("barycentre_iterations goes with aggregation 'ot' and uniform masses")

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Nothing, or the head."""
        return ("head.*",) if self.personal == "head" else ()

    @property
    def keeps_local_prototypes(self) -> bool:
        """Whether L survives the round."""
        return self.local_prototypes == "keep"

    @property
    def prototypes(self) -> PrototypeUpload:
        """By themselves for k-means and barycentres; else summed, aligned with the global ones so that equal indices mean equal
        things.
        """
        if self._needs_sets:
            return PrototypeUpload("sets")
        if self.aggregation == "mean":
            return PrototypeUpload("mean")
        return PrototypeUpload("aligned", self.solver, self.masses)

    def influence(self, round_: int) -> float:
        """0 while prototypes are random, then ``strength``."""
        return 0.0 if round_ <= self.warmup else self.strength

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """Averaged weights; new global prototypes."""
        theta = super().aggregate(total, shared, layouts).theta
        if self._needs_sets:
            sets = layouts.prototypes.unflatten(np.stack([vector for _, vector in total.sets]))
            weights = [weight for weight, _ in total.sets]
            reference = layouts.prototypes.unflatten(shared.prototypes)
            centres = {name: self._centre(sets[name], weights, reference[name]) for name in sets}
            return SharedState(theta, layouts.prototypes.flatten(centres))
        return SharedState(theta, total.mean("prototypes").astype(np.float32))

    @property
    def _needs_sets(self) -> bool:
        return self.aggregation == "kmeans" or self.barycentre_iterations > 0

    def _centre(self, sets: Vector, weights: list[float], reference: Vector) -> Vector:
        """New prototypes [K, d] of one layer from all clients' [C, K, d]."""
        if self.aggregation == "kmeans":
            return kmeans(sets, weights, keep_size=True)
        rounds = self.barycentre_iterations
        return ot_aggregate(sets, weights, reference, method=self.solver, barycentre_iterations=rounds)
