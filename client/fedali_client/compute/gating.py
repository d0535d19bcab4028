"""A device's own side of the gate: what it sends for others', and what it makes its own of; no label is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers import PROTOTYPES
from fedali.answers.between import HALFWAY, model_at
from fedali.answers.gate import Gate, aligned, centres, middle
from fedali.bundle.file import Bundle
from fedali_client.compute.inference import Inference
from fedali_client.state.answer import Answer, everyones
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import Vector

Array = npt.NDArray[Any]


class Gating:
    """Makes answers by the gate of ``bundle``.

    Args:
        bundle: answers by the gate.
        state: what was trained, and what that began with.
        inference: runs graphs, and has the answer that is in force.
    """

    def __init__(self, bundle: Bundle, state: PersonalState, inference: Inference) -> None:
        self._bundle, self._state, self._inference = bundle, state, inference

    @property
    def pending(self) -> bool:
        """Whether a training has ended that no answer was made after."""
        now = self._state.progress
        done = now.trained_on > 0 and not now.under_way and any(now.identity)
        return done and self._inference.answer.of != self._name

    def send(self, x: Array) -> None:
        """After a round's training on samples [n, *shape]: keep what is sent of them, in the order of everybody's before."""
        state = self._state
        shared = state.shared_theta, state.shared_prototypes, state.checkpoint.influence
        own = centres(self._of_training(x, self._inference.model(*shared)), PROTOTYPES)
        state.keep_gate(
            aligned(own, everyones(state.shared_theta, self._bundle)).astype(np.float32).reshape(-1)
        )

    def hear(
        self,
        theta: Vector,
        prototypes: Vector,
        influence: float,
        x: Array,
        validation: Array,
        *,
        took_part: bool = True,
    ) -> None:
        """Answer by a server's new vector theta [P] and prototypes [L] from now on, with what was trained last. On disk on return.

        Args:
            theta: the server's.
            prototypes: the server's.
            influence: of the ALP layers.
            x: training samples [n, *shape], n > 0.
            validation: samples [m, *shape], which may be none.
            took_part: whether the training was of the round that made ``theta``; else the middle would be of models that are no neighbours.
        """
        state, begin = self._state, self._bundle.manifest.answer
        size = begin[1] - begin[0]
        shared, local = theta[:size], prototypes
        if took_part:
            shared = middle(state.shared_theta[:size], shared)
            local = middle(state.shared_prototypes, local)
        self._make(shared, local, everyones(theta, self._bundle), influence, x, validation)

    def settle(self, x: Array, validation: Array) -> None:
        """Answer by what was trained without a federation: the shared model stays the one that answered so far. On disk on return."""
        now, influence = self._inference.answer, self._state.checkpoint.influence
        everyone = now.gate.everyone
        self._make(now.shared_theta, now.shared_prototypes, everyone, influence, x, validation)

    def _make(
        self,
        shared: Vector,
        prototypes: Vector,
        everyone: Array,
        influence: float,
        x: Array,
        validation: Array,
    ) -> None:
        begin, end = self._bundle.manifest.answer
        trained = self._state.theta()[begin:end]
        if everyone.any():
            model = self._inference.model(shared, prototypes, influence)
            own = self._of_training(x, model)
            others = self._inference.embeddings(validation, model) if len(validation) else own[:0]
            gate, personal = Gate.made(own, others, everyone), model_at(HALFWAY, trained, shared)
        else:  # of a bundle of an untrained model: nothing is known of others
            gate, personal = Gate.opened(everyone), trained
        local = self._state.local_prototypes.copy()
        self._inference.answers.write(
            Answer(personal, shared, local, prototypes, gate, influence, self._name)
        )

    def _of_training(self, x: Array, model: Mapping[str, Array]) -> Array:
        """Embeddings [n, d] of training samples by a model; those that the head is trained on are on the disk already."""
        if self._bundle.manifest.mode == "head":
            return self._inference.kept_embeddings(x, model)
        return self._inference.embeddings(x, model)

    @property
    def _name(self) -> str:
        """Of the latest training."""
        state = self._state
        return f"{state.checkpoint.task} {state.progress.fit} {state.progress.identity.hex()}"
