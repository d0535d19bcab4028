"""Slots: what a method keeps, gets and sends besides a model and its prototypes, all in one flat vector a client.

A client's vector begins with the model's parameters. Behind them lie the method's slots: those that are trained with the
model first. An entry of the vector's layout is called ``slot/name``; the model's own have no slash in their names.

    SCAFFOLD: [ model | control (shared) | own_control (kept) ]
    Ditto:    [ model | personal (kept, trained) ]
    FedRoD:   [ model | personal_head (kept, trained) | class_counts (kept) | both (kept) ]

What is shared of the vector travels down and up, weighted by samples; the rest stays with the client. Nothing that carries
the vector (store, wire, gateway, bundle, device) knows which method it serves.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedali.errors import SettingsError
from fedali.layout import Entry, Layout
from fedali.transport.solvers import Solver

Size = int | Literal["classes", "embedding"]


@dataclass(frozen=True)
class Descent:
    """How a slot is trained apart from the recipe's optimizer: by plain gradient descent, held between two numbers.

    Args:
        rate: what its gradient is multiplied with in a step.
        least: what it is at least after each step.
        most: what it is at most.
    """

    rate: float
    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True)
class Slot:
    """A named part of a client's vector.

    Args:
        name: a Python identifier.
        whose: ``"shared"``: the server's, sent to all, averaged from what clients send; ``"kept"``: a client's own;
            ``"round"``: sums over a client's training samples after its training (``Method.measure``), gone with the round.
        shape: ``"model"``: as the model's parameters; ``"head"``: as its head's; or sizes, where ``"classes"`` and
            ``"embedding"`` are the model's.
        starts: as the model's initial parameters, as zeros, or as this number everywhere.
        trained: whether the local step changes it, as it does the model.
        descent: how, where not by the recipe's optimizer.
    """

    name: str
    whose: Literal["shared", "kept", "round"]
    shape: Literal["model", "head"] | tuple[Size, ...] = "model"
    starts: Literal["model", "zeros"] | float = "zeros"
    trained: bool = False
    descent: Descent | None = None


@dataclass(frozen=True)
class Phase:
    """A part of local training: the parameters that it trains, with an optimizer that begins anew.

    Args:
        trains: glob patterns of parameters' names; one that begins with ``!`` takes names out.
        epochs: how many; None for those that other phases leave, at least one.
    """

    trains: tuple[str, ...]
    epochs: int | None = None

    def __contains__(self, name: str) -> bool:
        """Whether it trains the parameter called ``name``."""
        without = [pattern[1:] for pattern in self.trains if pattern.startswith("!")]
        wanted = [pattern for pattern in self.trains if not pattern.startswith("!")] or ["*"]
        return _matches(name, wanted) and not _matches(name, without)


@dataclass(frozen=True)
class PrototypeUpload:
    """How a client's prototypes travel up.

    Args:
        kind: ``"mean"``: summed as they are; ``"aligned"``: by optimal transport to the server's, then summed; ``"sets"``: each
            client's set by itself.
        solver: of the transport.
        masses: of a client's prototypes: ``"uniform"``, or ``"occupancy"``, see ``fedali.methods.FedAliPaper``.
    """

    kind: Literal["mean", "aligned", "sets"]
    solver: Solver = "auto"
    masses: Literal["uniform", "occupancy"] = "uniform"


@dataclass(frozen=True)
class ModelFacts:
    """What slots need to know of a model: the layout of its parameters, its classes, and d of its embedding."""

    parameters: Layout
    classes: int
    embedding: int


class Named:
    """A flat vector's parts by name, looked up when they are asked for.

    ``vector["control"]`` is a slot: arrays by the parameters' names where it has the model's shape, one array otherwise.
    """

    def __init__(self, values: Callable[[], Mapping[str, Any]]) -> None:
        self._load = values

    @classmethod
    def of(cls, layout: Layout, flat: Any) -> Named:
        """The parts of ``flat`` [..., P]: numpy's or torch's."""
        return cls(lambda: layout.unflatten(flat))

    @cached_property
    def _values(self) -> Mapping[str, Any]:
        return self._load()

    @cached_property
    def model(self) -> dict[str, Any]:
        """The model's parameters."""
        return {name: value for name, value in self._values.items() if "/" not in name}

    def __getitem__(self, slot: str) -> Any:
        found = {
            name.removeprefix(f"{slot}/"): value
            for name, value in self._values.items()
            if name.startswith(f"{slot}/")
        }
        if not found:
            known = dict.fromkeys(_slot_of(name) for name in self._values if "/" in name)
            raise SettingsError(
                f"a method asks for its slot {slot!r}; here it has {', '.join(known) or 'none'}"
            )
        return found.get("", found)


def layout_of(facts: ModelFacts, slots: Sequence[Slot]) -> Layout:
    """The layout of a client's vector [P]: the model, slots that are trained, the others."""
    shapes = {entry.name: entry.shape for entry in facts.parameters.entries}
    kept = [slot for slot in slots if slot.whose != "round"]
    for slot in sorted(kept, key=lambda slot: not slot.trained):
        shapes |= _shapes(slot, facts)
    return Layout.of(shapes)


def measured_layout(facts: ModelFacts, slots: Sequence[Slot]) -> Layout:
    """The layout of what is summed over a client's samples after its training."""
    shapes: dict[str, tuple[int, ...]] = {}
    for slot in slots:
        if slot.whose == "round":
            shapes |= _shapes(slot, facts)
    return Layout.of(shapes)


def initial_vector(
    facts: ModelFacts, slots: Sequence[Slot], theta: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """A client's vector [P] before the first round, of the model's initial parameters."""
    whole = layout_of(facts, slots)
    vector = np.zeros(whole.size, np.float32)
    vector[: theta.size] = theta
    for slot in slots:
        if slot.whose == "round" or slot.starts == "zeros":
            continue
        where = slot_slice(whole, slot.name)
        if slot.starts == "model":
            vector[where] = np.concatenate([theta[entry.where] for entry in _like(slot, facts)])
        else:
            vector[where] = slot.starts
    return vector


@lru_cache(maxsize=64)
def model_layout(whole: Layout) -> Layout:
    """The model's part of a vector's layout, at its beginning."""
    return Layout.of({entry.name: entry.shape for entry in whole.entries if "/" not in entry.name})


def slot_slice(whole: Layout, slot: str) -> slice:
    """Where a slot lies in the vector; the model for ``""``."""
    if not slot:
        return slice(0, model_layout(whole).size)
    own = [entry for entry in whole.entries if entry.name.startswith(f"{slot}/")]
    return slice(own[0].offset, own[-1].offset + own[-1].size)


@lru_cache(maxsize=64)
def trained_layout(whole: Layout, slots: tuple[Slot, ...]) -> Layout:
    """What local training changes: the model, and the slots that are trained; the vector's beginning [T]."""
    trained = {slot.name for slot in slots if slot.trained}
    return Layout.of({e.name: e.shape for e in whole.entries if _slot_of(e.name) in {"", *trained}})


def rest_layout(whole: Layout, trained: Layout) -> Layout:
    """What local training leaves as it is: the vector's end [P - T]."""
    return Layout.of({entry.name: entry.shape for entry in whole.entries[len(trained.entries) :]})


def epochs_of(phases: Sequence[Phase], epochs: int) -> list[int]:
    """Epochs of each phase of a training of ``epochs``; those without a number share what is left.

    >>> epochs_of((Phase(("head.*",)), Phase(("!head.*",), epochs=1)), 5)
    [4, 1]
    """
    return share_epochs([phase.epochs for phase in phases], epochs) if phases else [epochs]


def share_epochs(given: Sequence[int | None], epochs: int) -> list[int]:
    """Epochs of each phase, given those that have a number; ``SettingsError`` where ``epochs`` are too few, or not all used."""
    open_ = sum(each is None for each in given)
    left = epochs - sum(each or 0 for each in given)
    if left < open_ or (left and not open_):
        needed = sum(each or 1 for each in given)
        raise SettingsError(
            f"the method trains in phases, of {needed} epochs {'at least' if open_ else 'exactly'}: epochs is {epochs}"
        )
    shares = iter([(left + i) // open_ for i in range(open_)][::-1]) if open_ else iter(())
    return [next(shares) if each is None else each for each in given]


def personal_entries(whole: Layout, patterns: Iterable[str], slots: Sequence[Slot]) -> list[str]:
    """Names of a vector's entries that stay with the client: parameters that match ``patterns``, and kept slots."""
    patterns, kept = list(patterns), {slot.name for slot in slots if slot.whose == "kept"}
    own = model_layout(whole)
    if patterns:
        own.select(patterns)  # says so where one matches nothing
    return [
        name for name in whole.names if (_slot_of(name) in kept if "/" in name else _matches(name, patterns))
    ]


def _slot_of(name: str) -> str:
    slot, slash, _ = name.partition("/")
    return slot if slash else ""


def _shapes(slot: Slot, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    if isinstance(slot.shape, str):
        return {f"{slot.name}/{entry.name}": entry.shape for entry in _like(slot, facts)}
    known = {"classes": facts.classes, "embedding": facts.embedding}
    return {f"{slot.name}/": tuple(known[size] if isinstance(size, str) else size for size in slot.shape)}


def _like(slot: Slot, facts: ModelFacts) -> list[Entry]:
    """The model's parameters that a slot has the shape of."""
    return [e for e in facts.parameters.entries if slot.shape == "model" or e.name.startswith("head.")]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
