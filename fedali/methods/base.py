"""What a federated method is: what stays personal, the local objective, what is uploaded, how the server aggregates.

The defaults are those of FedAvg; a method overrides what it does differently. Server-side hooks are numpy over flat
vectors; the local ones are torch, pure, and become part of the captured graphs: the same on every engine and device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from fedali.answers import Answer
from fedali.errors import SettingsError, did_you_mean
from fedali.layout import Layout
from fedali.slots import Phase, PrototypeUpload, Slot, personal_entries
from fedali.uploads import SharedState as SharedState
from fedali.uploads import Trained as Trained
from fedali.uploads import Upload as Upload
from fedali.uploads import make_upload

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended, Started
    from fedali.tasks import Task

Vector = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Layouts:
    """Layouts of a client's vector (``fedali.slots``) and of one set of its prototypes."""

    parameters: Layout
    prototypes: Layout


@dataclass(frozen=True)
class Method:
    """Base of all methods; as it stands it is FedAvg.

    A method is a frozen dataclass whose fields are its options. It is used by its ``name`` where it is registered in
    ``fedali.methods``, and by ``"module:Class"`` from anywhere else::

        @dataclass(frozen=True)
        class FedProx(Method):
            name: ClassVar[str] = "fedprox"
            mu: float = 0.1

            def objective(self, step: ClientStep) -> Tensor:
                return step.loss() + self.mu / 2 * squared_distance(step.own.model, step.server.model)

    Hooks that run where clients train (``begin``, ``objective``, ``measure``, ``finish``) take tensors by name, see
    ``fedali.step.client.ClientStep``; they must not write in place, nor branch on values. Those of the server (``aggregate``)
    take numpy vectors [P] in the order of ``layouts.parameters``.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    uses_prototypes: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    """Whether it goes by samples' classes, and trains no task without them."""
    answer_slot: ClassVar[str] = ""
    """The slot that a client predicts with, of the model's shape; its model unless named."""

    answer: Answer = field(default="trained", kw_only=True)
    """What a client answers with, see ``fedali.answers``; of every method."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What a client's vector holds besides the model: of the class, or by its options."""
        return ()

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Glob patterns of the model's parameters that never leave the client."""
        return ()

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Parts of local training, one after another; none: everything trains together."""
        return ()

    @property
    def extra_epochs(self) -> int:
        """Epochs of a client's training beyond those of the recipe: a larger budget than other methods have."""
        return 0

    @property
    def prototypes(self) -> PrototypeUpload | None:
        """How local prototypes travel up; None where they stay."""
        return None

    @property
    def has_global_model(self) -> bool:
        """Whether the server's model is complete: nothing of it is personal."""
        return not self.personal_parameters

    @property
    def keeps_local_prototypes(self) -> bool:
        """Whether a client starts a round from its own local prototypes instead of the global ones."""
        return False

    def for_task(self, task: Task) -> Method:
        """The method as it trains ``task``. Raises ``SettingsError`` where it cannot."""
        if self.needs_classes or self.answer == "neighbours":
            task.need_classes(f"method {self.name!r}" if self.needs_classes else "the answer of 'neighbours'")
        return self

    def influence(self, round_: int) -> float:
        """Share of the prototypes in the ALP layers' output in a round (1, 2, ...)."""
        return 0.0

    def begin(self, start: Started) -> Mapping[str, Tensor | Mapping[str, Tensor]]:
        """As each phase of training starts: new values of slots, ``"model"`` among them; the rest stay as they are.

        Slots that are not trained change before the first phase alone, and may follow from anything but what is trained.
        What is given must not depend on what it replaces: a device that was switched off meanwhile asks again.
        """
        return {}

    def objective(self, step: ClientStep) -> Tensor:
        """What a client minimises, a mean over its batch: the task's loss, unless a method says otherwise."""
        return step.loss()

    def measure(self, step: ClientStep) -> Mapping[str, Tensor]:
        """After training: what a batch adds to each slot of ``whose="round"``; padding has weight 0."""
        return {}

    def finish(self, end: Ended) -> Mapping[str, Tensor | Mapping[str, Tensor]]:
        """After training: new values of slots that are not trained; the rest stay as they are."""
        return {}

    def upload(self, client: Trained, shared: SharedState, layouts: Layouts) -> Upload:
        """What a trained client sends: what is shared of its vector, and its prototypes as ``prototypes`` says.

        A gateway does the same by what the bundle says of the slots, without the method's code.
        """
        return make_upload(
            client, shared, shared_indices(self, layouts.parameters), self.prototypes, layouts.prototypes
        )

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """Server side: the next shared state from everything uploaded."""
        theta = shared.theta.copy()
        where = shared_indices(self, layouts.parameters)
        if where.size:
            theta[where] = total.mean("theta")
        return SharedState(theta, shared.prototypes)


@lru_cache(maxsize=64)
def _indices(patterns: tuple[str, ...], slots: tuple[Slot, ...], layout: Layout) -> npt.NDArray[np.int64]:
    own = set(personal_entries(layout, patterns, slots))
    parts = [np.arange(e.offset, e.offset + e.size) for e in layout.entries if e.name in own]
    chosen = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
    chosen.setflags(write=False)
    return chosen


@lru_cache(maxsize=64)
def _other_indices(
    patterns: tuple[str, ...], slots: tuple[Slot, ...], layout: Layout
) -> npt.NDArray[np.int64]:
    own = _indices(patterns, slots, layout)
    rest = np.setdiff1d(np.arange(layout.size), own, assume_unique=True)
    rest.setflags(write=False)
    return rest


def personal_indices(method: Method, layout: Layout) -> npt.NDArray[np.int64]:
    """Where a client's vector is personal under ``method``: sorted indices."""
    return _indices(method.personal_parameters, method.slots, layout)


def shared_indices(method: Method, layout: Layout) -> npt.NDArray[np.int64]:
    """Where a client's vector is shared under ``method``: sorted indices, the rest of ``personal_indices``."""
    return _other_indices(method.personal_parameters, method.slots, layout)


def begins(method: Method) -> bool:
    """Whether anything is done as a client's training starts."""
    return type(method).begin is not Method.begin


def finishes(method: Method) -> bool:
    """Whether anything is done after a client's training."""
    return type(method).finish is not Method.finish


def check_choices(method: Method) -> None:
    """Raise ``SettingsError`` for an option that is none of its ``Literal``'s values."""
    for name, kind in get_type_hints(type(method)).items():
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = getattr(method, name)
        if choices and value not in choices:
            raise SettingsError(f"{name} is {value!r}; {did_you_mean(str(value), choices)}")


def check_at_least(least: float, **options: float) -> None:
    """Raise ``SettingsError`` for an option that is no finite number of at least ``least``."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise SettingsError(f"{name} is {value!r}, it has to be a number of at least {least:g}")


def check_count(least: int, **options: int) -> None:
    """Raise ``SettingsError`` for an option that is no whole number of at least ``least``."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingsError(f"{name} is {value!r}, it has to be a whole number of at least {least}")
