"""Answers by the gate of clients whose data are at a site: what they trained is kept until they hear of the model that the round made.

    trained/began.safetensors       the model that the latest training began with
    trained/3.safetensors           what client 3 trained from it: the model that answers, and its local prototypes

Each names its run and round; what is of another one answers nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fedali.answers.between import HALFWAY, model_at
from fedali.answers.gate import Array
from fedali.cohort.answering import answered_by_gate, everyones, middle_of, with_centres
from fedali.cohort.tensorfile import read_tensors
from fedali.engines.base import Samples, TrainResult, Vector
from fedali.engines.outputs import Outputs
from fedali.layout import Layout
from fedali.methods import SharedState
from fedali.support.files import reporting, write_bytes
from fedali.v1 import relay_pb2


class SiteGate:
    """The gate's part in a round.

    Args:
        outputs: runs the bundle's model.
        folder: for what is kept.
        order: of the round.
        layout: of clients' vectors.
    """

    def __init__(self, outputs: Outputs, folder: Path, order: relay_pb2.RoundOrder, layout: Layout) -> None:
        self._outputs, self._folder, self._order, self._layout = outputs, folder, order, layout
        with reporting(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, shared: SharedState) -> None:
        """A training begins with this state."""
        self._write("began", theta=shared.theta, prototypes=shared.prototypes)

    def sent(self, samples: Samples, result: TrainResult, shared: SharedState) -> TrainResult:
        """A client's training on ``samples`` with what it sends for the gate."""
        return with_centres(result, self._outputs, samples, self._order.influence, shared, self._layout)

    def keep(self, number: int, theta: Vector, prototypes: Vector) -> None:
        """Keep the model [M] that client ``number`` trained, and its local prototypes [L]."""
        self._write(str(number), theta=theta, prototypes=prototypes)

    def answers(
        self, number: int, shared: SharedState, train: Samples, sets: Sequence[Samples]
    ) -> list[Array] | None:
        """Probabilities [n, classes] of what client ``number`` answers on each of ``sets``, its validation samples first, with the new state.

        None where it did not train in this round.
        """
        began, own = self._read("began"), self._read(str(number))
        if began is None or own is None:
            return None
        model, influence = middle_of(began, shared, self._layout), self._order.influence
        (_, embeddings), *theirs = self._outputs(*model, [train, *sets], influence)
        halfway = model_at(HALFWAY, own.theta, model[0])
        mine = self._outputs(halfway, own.prototypes, sets, influence)
        said = answered_by_gate(embeddings, everyones(shared, self._layout), mine, theirs)
        return [each.scores for each in said]

    def _write(self, name: str, **tensors: Vector) -> None:
        arrays = {key: np.ascontiguousarray(value, np.float32) for key, value in tensors.items()}
        write_bytes(self._folder / f"{name}.safetensors", save(arrays, {"fedali": json.dumps(self._facts)}))

    def _read(self, name: str) -> SharedState | None:
        path = self._folder / f"{name}.safetensors"
        if not path.exists():
            return None
        tensors, facts = read_tensors(path)
        return SharedState(tensors["theta"], tensors["prototypes"]) if facts == self._facts else None

    @property
    def _facts(self) -> dict[str, str]:
        return {"run": self._order.run, "round": str(self._order.round)}
