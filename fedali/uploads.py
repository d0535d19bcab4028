"""What clients send, as a value: weighted sums and single sets, which add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.aggregation import WeightedSum
from fedali.errors import FedaliError
from fedali.layout import Layout
from fedali.slots import PrototypeUpload
from fedali.transport.plans import ot_align, separation

Vector = npt.NDArray[np.floating[Any]]

SUMS = ("theta", "prototypes")


@dataclass(frozen=True, eq=False)
class SharedState:
    """What the server owns: theta [P], a client's vector as a new one begins, and global prototypes [L]. Not written to.

    The personal part of ``theta`` keeps its initial values.
    """

    theta: Vector
    prototypes: Vector


@dataclass(frozen=True)
class Trained:
    """A client after local training: its vector theta [P], local prototypes [L], and its weight: its number of training samples,
    or what follows from how it was drawn.

    ``occupancy`` [number of prototypes], where a method asked for it: for how many training embeddings each
    prototype answered.
    """

    theta: Vector
    local_prototypes: Vector
    samples: float
    occupancy: Vector | None = None


@dataclass
class Upload:
    """What one client sends, or many together: ``one + other`` is both's. Memory for one client's worth serves any number.

    Args:
        sums: ``theta`` [S], what is shared of the clients' vectors, and ``prototypes`` [L], each times its client's samples.
        sets: weight and prototypes [L] of each client, where a method needs them one by one.
        clients: how many are in it.
        population: how many could have been: all that the sites answer for.
    """

    sums: dict[str, WeightedSum] = field(default_factory=dict)
    sets: list[tuple[float, Vector]] = field(default_factory=list)
    clients: int = 0
    population: int = 0

    def __iadd__(self, other: Upload) -> Upload:
        """Add what ``other`` holds; it must not change afterwards."""
        for name, total in other.sums.items():
            self.sums.setdefault(name, WeightedSum()).merge(total)
        self.sets += other.sets
        self.clients += other.clients
        self.population += other.population
        return self

    def __add__(self, other: Upload) -> Upload:
        """Both together."""
        both = Upload()
        both += self
        both += other
        return both

    def mean(self, name: str) -> Vector:
        """The weighted mean of ``theta`` or ``prototypes``, float64; ``DataError`` where nobody sent any."""
        return self.sums.get(name, WeightedSum()).mean()

    @property
    def participation(self) -> float:
        """Share of all clients that are in it; 1 where the sites did not say."""
        return self.clients / self.population if self.population else 1.0

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as named arrays: the one form for disk, relay and Flower; ``from_arrays`` reads it."""
        arrays: dict[str, npt.NDArray[Any]] = {"clients": np.array([self.clients, self.population], np.int64)}
        for name, total in self.sums.items():
            if total.total is not None and total.weight:
                arrays[name], arrays[f"{name}.weight"] = total.total, np.array([total.weight])
        if self.sets:
            arrays["sets"] = np.stack([vector for _, vector in self.sets])
            arrays["sets.weight"] = np.array([weight for weight, _ in self.sets], np.float64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Upload:
        """What ``to_arrays`` gave; ``FedaliError`` where something is missing, not finite or of no weight."""
        try:
            clients, population = (int(number) for number in arrays["clients"])
            sums = {}
            for name in SUMS:
                if name in arrays:
                    value, weight = arrays[name], float(arrays[f"{name}.weight"][0])
                    if not np.isfinite(value).all() or not weight > 0:
                        raise FedaliError(f"the sum of {name} is not finite or has no weight")
                    sums[name] = WeightedSum(value, weight)
            sets = arrays.get("sets", np.empty((0, 0)))
            if not np.isfinite(sets).all():
                raise FedaliError("a set of prototypes is not finite")
            weights = [float(weight) for weight in arrays.get("sets.weight", np.empty(0))]
            return cls(sums, list(zip(weights, sets, strict=True)), clients, population)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise FedaliError(f"an upload cannot be read: {error}") from None

    def to_bytes(self) -> bytes:
        """``to_arrays`` as safetensors."""
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(array) for name, array in self.to_arrays().items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Upload:
        """What ``to_bytes`` gave, or nothing of nothing; ``FedaliError`` where it cannot be read."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if not data:
            return cls()
        try:
            return cls.from_arrays(load(data))
        except (SafetensorError, ValueError) as error:
            raise FedaliError(f"an upload cannot be read: {error}") from None

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise ``FedaliError`` for sums and sets of other lengths than ``sizes`` says: they must not touch others'."""
        named: dict[str, Vector | None] = {name: total.total for name, total in self.sums.items()}
        named |= {f"prototype set {i}": vector for i, (_, vector) in enumerate(self.sets)}
        for name, array in named.items():
            size = sizes["prototypes" if name.startswith("prototype set") else name]
            if array is not None and array.shape != (size,):
                raise FedaliError(f"its {name} has shape {list(array.shape)}, this model's is [{size}]")


def make_upload(
    client: Trained,
    shared: SharedState,
    where: npt.NDArray[np.int64],
    prototypes: PrototypeUpload | None,
    layout: Layout,
) -> Upload:
    """What a trained client sends.

    Args:
        client: after training.
        shared: what the round began with.
        where: [S] what is shared of its vector.
        prototypes: how they travel; None where they stay.
        layout: of a set of prototypes.

    Raises ``FedaliError`` where prototypes cannot be aligned, ``DataError`` for what is not finite.
    """
    upload = Upload(clients=1)
    if where.size:
        everything = where.size == len(client.theta)
        theta = WeightedSum()
        theta.add(client.theta if everything else client.theta[where], client.samples)
        upload.sums["theta"] = theta
    if prototypes is None:
        return upload
    if prototypes.kind == "sets":
        upload.sets.append((client.samples, client.local_prototypes))
        return upload
    local = client.local_prototypes
    if prototypes.kind == "aligned":
        local = _aligned(client, shared, prototypes, layout)
    upload.sums["prototypes"] = WeightedSum()
    upload.sums["prototypes"].add(local, client.samples)
    return upload


def _aligned(client: Trained, shared: SharedState, how: PrototypeUpload, layout: Layout) -> Vector:
    """A client's prototypes [L] in the order of the server's."""
    aligned, first = {}, 0
    occupancy = client.occupancy if how.masses == "occupancy" else None
    solver = how.solver if occupancy is None or how.solver != "auto" else "unbalanced"
    reference = layout.unflatten(shared.prototypes)
    apart = _separations(shared, layout) if solver == "auto" else {}
    for name, local in layout.unflatten(client.local_prototypes).items():
        masses = None if occupancy is None else occupancy[first : first + len(local)]
        options = {"weights": masses, "method": solver, "apart": apart.get(name)}
        aligned[name] = ot_align(local, reference[name], **options)  # type: ignore[arg-type]
        first += len(local)
    return layout.flatten(aligned, np.float64)


@lru_cache(maxsize=4)
def _separations(shared: SharedState, layout: Layout) -> dict[str, Vector]:
    """Of each layer's global prototypes; computed once a round, for all clients of a site."""
    return {name: separation(rows) for name, rows in layout.unflatten(shared.prototypes).items()}
