"""What a client answers with: its own model, everybody's, something between both, or whichever knows a sample better.

A method trains as it does; ``Method.answer`` says what is done with what came out:

* ``trained``: the client's model as training left it, as published for most methods;
* ``shared``: the server's model;
* ``between``: ``shared + a (trained - shared)``, a point on the line between both, see ``fedali.answers.between``;
* ``gate``: both answer, and prototypes say for each sample whose word counts, see ``fedali.answers.gate``;
* ``neighbours``: the server's model and the nearest of the client's training samples, see ``fedali.answers.neighbours``.

Numpy alone: a device does the same.
"""

from __future__ import annotations

from typing import Literal, get_args

from fedali.layout import Layout
from fedali.slots import Slot, slot_slice

Answer = Literal["trained", "shared", "between", "gate", "neighbours"]
ANSWERS: tuple[str, ...] = get_args(Answer)

BUNDLED: tuple[str, ...] = ("trained", "gate")  # what a bundle can say that its devices answer with
PROTOTYPES = 64
GATE = Slot("gate", "shared", (PROTOTYPES, "embedding"))
"""Everybody's prototypes: clients send theirs, aligned to those that they were sent, and the server averages them."""


def size_without(answer: str, layout: Layout) -> int:
    """Where the answer's slots begin in a client's vector; before them is what training knows of."""
    return slot_slice(layout, GATE.name).start if answer == "gate" else layout.size


def slots_of(answer: str) -> tuple[Slot, ...]:
    """What an answer adds to a client's vector."""
    return (GATE,) if answer == "gate" else ()
