"""What simulated clients answer with when that is not their trained model: see ``fedali.answers``.

A client knows its answer when it has heard of the round's shared model: it is tested in the evaluation at the end of the round, with
the model that this round made. The gate looks at embeddings of the model that the round began with, since the prototypes that the clients
sent are of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers import GATE, PROTOTYPES, size_without
from fedali.answers.between import HALFWAY, POINTS, chosen, model_at
from fedali.answers.gate import Array, Gate, aligned, centres, mixed, probabilities
from fedali.answers.neighbours import Memory, answered
from fedali.answers.neighbours import chosen as share_of_memory
from fedali.engines.base import Labels, Samples, TrainResult, Vector
from fedali.engines.outputs import Outputs
from fedali.methods import Layouts, Method, SharedState
from fedali.metrics import calibration_error
from fedali.slots import slot_slice
from fedali.task import CLASSIFICATION


@dataclass(frozen=True)
class Candidate:
    """A client with the model that it trained in this round: parameters that it would answer with [M], and prototypes [L]."""

    client: int
    theta: Vector
    prototypes: Vector


Numbers = dict[str, float]


class Answering:
    """The answers of a site's clients.

    Args:
        method: which answer.
        layouts: of clients' vectors, with what the answer adds.
        outputs: runs the model.
        train, validation, test: samples of all clients of the federation.
        everyone: indices of those whose test data generalisation is measured on.
        seed: of the prototypes' starts.
        calibration: whether to measure it, of clients whose answers on everyone's data are tested.
    """

    def __init__(
        self,
        method: Method,
        layouts: Layouts,
        outputs: Outputs,
        train: Sequence[Samples],
        validation: Sequence[Samples],
        test: Sequence[Samples],
        everyone: Sequence[int],
        seed: int,
        calibration: bool = True,
    ) -> None:
        self.method, self.layouts, self._outputs, self._seed = method, layouts, outputs, seed
        self._train, self._validation, self._test = train, validation, test
        self._everyone, self._calibration = list(everyone), calibration
        self._own: dict[int, Array] = {}  # prototypes of the clients that trained in this round
        self._began: SharedState | None = None  # what the round began with

    @property
    def size(self) -> int:
        """What training knows of a client's vector: all but the answer's slots [P'], which lie behind it."""
        return size_without(self.method.answer, self.layouts.parameters)

    def begin(self, shared: SharedState) -> None:
        """A round begins with this state."""
        self._own, self._began = {}, shared

    def sent(self, client: int, result: TrainResult, round_: int, shared: SharedState) -> TrainResult:
        """A client's training with what its answer sends besides."""
        if self.method.answer != "gate":
            return result
        influence = self.method.influence(round_)
        ((_, embeddings),) = self._outputs(
            self._model(shared), shared.prototypes, [self._train[client]], influence
        )
        self._own[client] = own = centres(embeddings, PROTOTYPES, self._seed)
        before = shared.theta[slot_slice(self.layouts.parameters, GATE.name)].reshape(own.shape)
        sent = aligned(own, before).astype(result.theta.dtype).reshape(-1)
        return TrainResult(
            np.concatenate([result.theta, sent]),
            result.local_prototypes,
            result.loss,
            result.accuracy,
            result.occupancy,
        )

    def evaluate(
        self, candidates: Sequence[Candidate], round_: int, shared: SharedState, tested: set[int]
    ) -> dict[int, Numbers]:
        """Metrics of each client that trained in this round: own validation and test data, and everyone's of those in ``tested``."""
        if not candidates:
            return {}
        influence = self.method.influence(round_)
        together = [self._test[client] for client in self._everyone]
        validation = [self._validation[one.client] for one in candidates]
        theirs = self._outputs(self._model(shared), shared.prototypes, [*together, *validation], influence)
        of = {client: k for k, client in enumerate(self._everyone)}
        answer: Callable[..., list[Array]] = self._mixing(candidates, together, validation, influence, shared)
        labels = np.concatenate([samples.y for samples in together])
        found: dict[int, Numbers] = {}
        for k, one in enumerate(candidates):
            sets = [validation[k], *(together if one.client in tested else [self._test[one.client]])]
            places = [
                len(together) + k,
                *(range(len(together)) if one.client in tested else [of[one.client]]),
            ]
            said = answer(one, sets, places, [theirs[place][0] for place in places])
            own = of[one.client] + 1 if one.client in tested else 1
            numbers = _scores("validation", sets[0].y, said[0], self._number_of_classes(theirs))
            numbers |= _scores("personalisation", sets[own].y, said[own], self._number_of_classes(theirs))
            if one.client in tested:
                all_ = np.concatenate(said[1:])
                numbers |= _scores("generalisation", labels, all_, self._number_of_classes(theirs))
            if tested and self._calibration:
                numbers["personalisation_ece"] = self._error(sets[own].y, said[own])
            if one.client in tested and self._calibration:
                numbers["generalisation_ece"] = self._error(labels, all_)
            found[one.client] = numbers
        return found

    def _mixing(
        self,
        candidates: Sequence[Candidate],
        together: Sequence[Samples],
        validation: Sequence[Samples],
        influence: float,
        shared: SharedState,
    ) -> Callable[[Candidate, list[Samples], list[int], list[Array]], list[Array]]:
        """A function of a client, sets of samples, their places and the shared model's logits that gives what it answers on each."""
        if self.method.answer == "shared":
            return lambda one, sets, places, theirs: theirs
        if self.method.answer == "between":
            points = self._points(candidates, validation, influence, shared)

            def between(
                one: Candidate, sets: list[Samples], places: list[int], theirs: list[Array]
            ) -> list[Array]:
                theta = model_at(points[one.client], one.theta, self._model(shared))
                return [logits for logits, _ in self._outputs(theta, one.prototypes, sets, influence)]

            return between
        if self.method.answer == "neighbours":
            return self._remembering(candidates, together, validation, influence, shared)
        began = self._began
        assert began is not None
        seen = self._outputs(self._model(began), began.prototypes, [*together, *validation], influence)
        where = slot_slice(self.layouts.parameters, GATE.name)

        def gate(one: Candidate, sets: list[Samples], places: list[int], theirs: list[Array]) -> list[Array]:
            own = self._own[one.client]
            weigh = Gate.of(own, shared.theta[where].reshape(own.shape), seen[places[0]][1])
            halfway = model_at(HALFWAY, one.theta, self._model(shared))
            mine = self._outputs(halfway, one.prototypes, sets, influence)
            return [
                mixed(weigh(seen[place][1]), probabilities(logits), probabilities(other))
                for place, (logits, _), other in zip(places, mine, theirs, strict=True)
            ]

        return gate

    def _remembering(
        self,
        candidates: Sequence[Candidate],
        together: Sequence[Samples],
        validation: Sequence[Samples],
        influence: float,
        shared: SharedState,
    ) -> Callable[[Candidate, list[Samples], list[int], list[Array]], list[Array]]:
        """``_mixing`` of clients' memories with the shared model."""
        model = self._model(shared), shared.prototypes
        seen = self._outputs(*model, [*together, *validation], influence)

        def neighbours(
            one: Candidate, sets: list[Samples], places: list[int], theirs: list[Array]
        ) -> list[Array]:
            samples = self._train[one.client]
            ((_, embeddings),) = self._outputs(*model, [samples], influence)
            memory = Memory(embeddings, samples.y, theirs[0].shape[1])
            near = [memory(seen[place][1]) for place in places]
            shares = [probabilities(logits) for logits in theirs]
            a = share_of_memory(near[0], shares[0], sets[0].y)
            return [answered(a, *both) for both in zip(near, shares, strict=True)]

        return neighbours

    def _points(
        self,
        candidates: Sequence[Candidate],
        validation: Sequence[Samples],
        influence: float,
        shared: SharedState,
    ) -> Mapping[int, float]:
        """The point between both models that each client takes."""
        curves = np.zeros((len(candidates), len(POINTS)))
        for k, (one, samples) in enumerate(zip(candidates, validation, strict=True)):
            for j, a in enumerate(POINTS):
                theta = model_at(a, one.theta, self._model(shared))
                ((logits, _),) = self._outputs(theta, one.prototypes, [samples], influence)
                curves[k, j] = np.mean(logits.argmax(1) == samples.y)
        points = chosen(curves, np.array([len(samples) for samples in validation], float))
        return {one.client: a for one, a in zip(candidates, points, strict=True)}

    def _error(self, labels: Labels, said: Array) -> float:
        """Calibration of what a client said: logits, or probabilities where two answers are mixed."""
        mixes = self.method.answer in ("gate", "neighbours")
        return calibration_error(labels, said if mixes else probabilities(said))

    def _model(self, shared: SharedState) -> Vector:
        return shared.theta[slot_slice(self.layouts.parameters, "")]

    def _number_of_classes(self, theirs: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> int:
        return int(theirs[0][0].shape[1])


def _scores(name: str, labels: Labels, said: Array, classes: int) -> Numbers:
    return dict(CLASSIFICATION.scores(name, labels, said.argmax(1), classes))
