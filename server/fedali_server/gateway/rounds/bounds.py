"""How far a client's update may reach: what goes beyond is refused before it touches a sum.

Bounds are relative to the state that the round starts from, so that one number serves all models. Training moves theta by a
tenth of its norm in a round of MotionSense or of digits, by a third in forty epochs from random numbers; prototypes move by a few percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError
from fedali.layout import Layout
from fedali.methods import SharedState
from fedali.slots import slot_slice
from fedali.v1 import relay_pb2
from fedali_server.gateway.rounds.bundles import RoundModel

Vector = npt.NDArray[np.floating]

_BLOCK = 1 << 15  # numbers
_SLOT = 10.0  # times what the model may move: slots such as control variates are differences themselves
_PROTOTYPE = 10.0  # times the round's longest, and no longer; training can make them longer, not at one blow


@dataclass(frozen=True, eq=False)
class Bounds:
    """Of a round.

    Args:
        theta: [S] of the round: the shared part of the model, then of each slot.
        reach: by slot, the model is ``""``: where it lies in theta, and the Euclidean distance that a client's may have from the round's;
            infinity for any.
        lengths: that a prototype may have, by layer; infinity for any.
        layout: of prototypes.
        samples: that a client may say it has; infinity for any.
    """

    theta: Vector
    reach: Mapping[str, tuple[slice, float]]
    lengths: tuple[float, ...]
    layout: Layout
    samples: float

    @classmethod
    def of(cls, order: relay_pb2.RoundOrder, shared: SharedState, model: RoundModel) -> Bounds:
        """What ``order`` asks for. Norms and lengths below 1 count as 1: a model may begin with zeros."""
        theta, layout, step = shared.theta[model.shared], model.layouts.prototypes, order.largest_step
        reach = {}
        for slot, where in _slots(model).items():
            length = _distance(theta[where])
            most = step * max(1.0, length) if step else math.inf
            if slot:  # what a method keeps besides the model may begin as zeros, and then grow to any length
                most = _SLOT * most if length else math.inf
            reach[slot] = where, most
        longest = _longest(shared.prototypes, layout)
        lengths = tuple(_PROTOTYPE * max(1.0, each) if step else math.inf for each in longest)
        return cls(theta, reach, lengths, layout, order.largest_samples or math.inf)

    def check(self, theta: Vector, prototypes: Vector) -> None:
        """Raise ``DataError`` saying which bound theta [S] or prototypes [L] go beyond."""
        for slot, (where, most) in self.reach.items():
            moved = _distance(theta[where], self.theta[where])
            if not moved <= most:
                raise DataError(
                    f"the update's {slot or 'theta'} is {moved:.4g} from the round's, and at most {most:.4g} is taken"
                )
        for layer, length, most in zip(
            self.layout.names, _longest(prototypes, self.layout), self.lengths, strict=True
        ):
            if not length <= most:
                raise DataError(
                    f"a prototype of {layer} is {length:.4g} long, and at most {most:.4g} is taken"
                )

    def check_samples(self, samples: int) -> None:
        """Raise ``DataError`` when these are too many."""
        if samples > self.samples:
            raise DataError(f"the update says {samples} samples, and at most {self.samples:.0f} are taken")


def _slots(model: RoundModel) -> dict[str, slice]:
    """Where each slot lies in theta [S]."""
    layout, found = model.layouts.parameters, {}
    names = dict.fromkeys(name.partition("/")[0] if "/" in name else "" for name in layout.names)
    for slot in names:
        where = slot_slice(layout, slot)
        first, end = np.searchsorted(model.shared, (where.start, where.stop))
        if end > first:
            found[slot] = slice(int(first), int(end))
    return found


def _distance(one: Vector, other: Vector | None = None) -> float:
    """Euclidean, of a vector from another or from zero; in float64, a block at a time: vectors may be large."""
    total = 0.0
    for first in range(0, one.size, _BLOCK):
        part = one[first : first + _BLOCK].astype(np.float64)
        if other is not None:
            part -= other[first : first + _BLOCK]
        total += float(part @ part)
    return math.sqrt(total)


def _longest(prototypes: Vector, layout: Layout) -> list[float]:
    """Length of the longest prototype of each layer."""
    layers = (each.reshape(-1, each.shape[-1]) for each in layout.unflatten(prototypes).values())
    return [max((_distance(row) for row in rows), default=0.0) for rows in layers]
