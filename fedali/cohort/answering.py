"""What simulated clients answer with when that is not their trained model: see ``fedali.answers``.

A client knows its answer when it has heard of the round's shared model: it is tested in the evaluation at the end of the round, with
the model that this round made, or, by the gate, with the middle of that one and the one that the round began with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedali.answers import GATE, PROTOTYPES, size_without
from fedali.answers.between import HALFWAY, POINTS, chosen, model_at
from fedali.answers.gate import Array, Gate, aligned, centres, middle, mixed, probabilities
from fedali.answers.neighbours import Memory, answered
from fedali.answers.neighbours import chosen as share_of_memory
from fedali.cohort.gate_scores import Gated, gate_scores, joined
from fedali.engines.base import Labels, Samples, TrainResult, Vector
from fedali.engines.outputs import Outputs
from fedali.layout import Layout
from fedali.methods import Layouts, Method, SharedState
from fedali.metrics import calibration_error
from fedali.slots import slot_slice
from fedali.targets import Targets
from fedali.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class Candidate:
    """A client with the model that it trained in this round: parameters that it would answer with [M], and prototypes [L]."""

    client: int
    theta: Vector
    prototypes: Vector


Numbers = dict[str, float]
Output = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # logits and embeddings


@dataclass(frozen=True, eq=False)
class Said:
    """What a client answers on a set of samples: outputs [n, T], or what was mixed of two models' answers, and what a gate mixed."""

    scores: Array
    gated: Gated | None = None


_Answer = Callable[[Candidate, list[Samples], list[Output]], list[Said]]


class Answering:
    """The answers of a site's clients.

    Args:
        method: which answer.
        layouts: of clients' vectors, with what the answer adds.
        outputs: runs the model.
        train, validation, test: samples of all clients of the federation.
        everyone: indices of those whose test data generalisation is measured on.
        calibration: whether to measure it, in rounds where everyone's data are tested.
        task: what is learnt.
        targets: of the data.
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
        calibration: bool = True,
        task: Task = CLASSIFICATION,
        targets: Targets | None = None,
    ) -> None:
        self.method, self.layouts, self._outputs = method, layouts, outputs
        self._train, self._validation, self._test = train, validation, test
        self._everyone, self._calibration = list(everyone), calibration
        self._task, self._targets = task, targets or Targets(())
        self._mixes = method.answer in ("gate", "neighbours")
        self._began: SharedState | None = None  # what the round began with

    @property
    def size(self) -> int:
        """What training knows of a client's vector: all but the answer's slots [P'], which lie behind it."""
        return size_without(self.method.answer, self.layouts.parameters)

    def begin(self, shared: SharedState) -> None:
        """A round begins with this state."""
        self._began = shared

    def sent(self, client: int, result: TrainResult, round_: int, shared: SharedState) -> TrainResult:
        """A client's training with what its answer sends besides."""
        if self.method.answer != "gate":
            return result
        influence, samples = self.method.influence(round_), self._train[client]
        return with_centres(result, self._outputs, samples, influence, shared, self.layouts.parameters)

    def evaluate(
        self, candidates: Sequence[Candidate], round_: int, shared: SharedState, tested: set[int]
    ) -> dict[int, Numbers]:
        """Metrics of each client that trained in this round: own validation and test data, and everyone's of those in ``tested``."""
        if not candidates:
            return {}
        influence = self.method.influence(round_)
        together = [self._test[client] for client in self._everyone]
        validation = [self._validation[one.client] for one in candidates]
        theta, prototypes = self._answers(shared)
        theirs = self._outputs(theta, prototypes, [*together, *validation], influence)
        of = {client: k for k, client in enumerate(self._everyone)}
        answer: _Answer = self._mixing(candidates, validation, influence, shared)
        labels = np.concatenate([samples.y for samples in together])
        found: dict[int, Numbers] = {}
        for k, one in enumerate(candidates):
            sets = [validation[k], *(together if one.client in tested else [self._test[one.client]])]
            places = [
                len(together) + k,
                *(range(len(together)) if one.client in tested else [of[one.client]]),
            ]
            answers = answer(one, sets, [theirs[place] for place in places])
            said = [each.scores for each in answers]
            own = of[one.client] + 1 if one.client in tested else 1
            numbers = self._scores("validation", sets[0].y, said[0])
            numbers |= self._scores("personalisation", sets[own].y, said[own])
            if one.client in tested:
                all_ = np.concatenate(said[1:])
                numbers |= self._scores("generalisation", labels, all_)
            if tested and self._calibration:
                numbers["personalisation_ece"] = self._error(sets[own].y, said[own])
            if one.client in tested and self._calibration:
                numbers["generalisation_ece"] = self._error(labels, all_)
            gated = [each.gated for each in answers[1:] if each.gated is not None]
            if one.client in tested and gated:
                whose = np.repeat(self._everyone, [len(samples) for samples in together])
                numbers |= gate_scores(joined(gated), labels, whose == one.client, self._task, self._targets)
            found[one.client] = numbers
        return found

    def newcomer(self, one: Candidate, labelled: Samples, round_: int, shared: SharedState) -> Labels:
        """What a client says of its test samples, that came after the last round, and has trained once from ``shared``.

        It knows no other model of the server's, and has labels of ``labelled`` alone: what others choose on validation data is a half. Its
        gate knows all its training and validation samples, since that needs no label.
        """
        answer, influence, new = self.method.answer, self.method.influence(round_), self._model(shared)
        sets = [self._validation[one.client], self._test[one.client]]
        given = [*sets, self._train[one.client], labelled]
        *theirs, (_, train), (_, known) = self._outputs(new, shared.prototypes, given, influence)
        logits, seen = theirs[1]
        if answer == "shared":
            return self._decided(logits)
        if answer == "neighbours":
            memory = Memory(known, labelled.y, logits.shape[1])
            return self._decided(answered(HALFWAY, memory(seen), probabilities(logits)))
        halfway = model_at(HALFWAY, one.theta, new)
        mine = self._outputs(halfway, one.prototypes, sets, influence)
        if answer == "between":
            return self._decided(mine[1][0])
        everyone = everyones(shared, self.layouts.parameters)
        return self._decided(answered_by_gate(train, everyone, mine, theirs, self._task)[1].scores)

    def _mixing(
        self,
        candidates: Sequence[Candidate],
        validation: Sequence[Samples],
        influence: float,
        shared: SharedState,
    ) -> _Answer:
        """What a client answers on each of sets of samples, its validation samples first, from what the shared model gives for them."""
        if self.method.answer == "shared":
            return lambda one, sets, theirs: [Said(logits) for logits, _ in theirs]
        if self.method.answer == "between":
            points = self._points(candidates, validation, influence, shared)

            def between(one: Candidate, sets: list[Samples], theirs: list[Output]) -> list[Said]:
                theta = model_at(points[one.client], one.theta, self._model(shared))
                return [Said(logits) for logits, _ in self._outputs(theta, one.prototypes, sets, influence)]

            return between
        model = self._answers(shared)

        def trained_on(one: Candidate) -> tuple[Array, Labels]:
            samples = self._train[one.client]
            ((_, embeddings),) = self._outputs(*model, [samples], influence)
            return embeddings, samples.y

        def neighbours(one: Candidate, sets: list[Samples], theirs: list[Output]) -> list[Said]:
            memory = Memory(*trained_on(one), theirs[0][0].shape[1])
            near = [memory(embeddings) for _, embeddings in theirs]
            shares = [probabilities(logits) for logits, _ in theirs]
            a = share_of_memory(near[0], shares[0], sets[0].y)
            return [Said(answered(a, *both)) for both in zip(near, shares, strict=True)]

        if self.method.answer == "neighbours":
            return neighbours
        everyone = everyones(shared, self.layouts.parameters)

        def gate(one: Candidate, sets: list[Samples], theirs: list[Output]) -> list[Said]:
            halfway = model_at(HALFWAY, one.theta, model[0])
            mine = self._outputs(halfway, one.prototypes, sets, influence)
            return answered_by_gate(trained_on(one)[0], everyone, mine, theirs, self._task)

        return gate

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
                curves[k, j] = self._goodness(samples.y, logits)
        points = chosen(curves, np.array([len(samples) for samples in validation], float))
        return {one.client: a for one, a in zip(candidates, points, strict=True)}

    def _error(self, labels: Labels, said: Array) -> float:
        """Calibration of what a client said: logits, or probabilities where two answers are mixed."""
        return calibration_error(labels, said if self._mixes else probabilities(said))

    def _goodness(self, labels: Labels, logits: Array) -> float:
        """How good outputs [n, T] are, more is better; 0 of no samples."""
        said = self._task.predict(logits)
        value = self._task.scores("", labels, said, self._targets)[""]
        return 0.0 if math.isnan(value) else self._task.better(value)

    def _scores(self, name: str, labels: Labels, said: Array) -> Numbers:
        return dict(self._task.scores(name, labels, self._decided(said), self._targets))

    def _decided(self, said: Array) -> Labels:
        """Answers of outputs [n, T], or of what was mixed."""
        found: Labels = self._task.decide(said) if self._mixes else self._task.predict(said)
        return found

    def _answers(self, shared: SharedState) -> tuple[Vector, Vector]:
        """The shared model that answers: parameters [M], and prototypes [L]."""
        if self.method.answer != "gate":
            return self._model(shared), shared.prototypes
        assert self._began is not None
        return middle_of(self._began, shared, self.layouts.parameters)

    def _model(self, shared: SharedState) -> Vector:
        return shared.theta[slot_slice(self.layouts.parameters, "")]


def with_centres(
    result: TrainResult,
    outputs: Outputs,
    samples: Samples,
    influence: float,
    shared: SharedState,
    layout: Layout,
) -> TrainResult:
    """A client's training on ``samples`` from ``shared``, with what it sends in the gate's slot, at the end of its vector of ``layout``."""
    model = shared.theta[slot_slice(layout, "")], shared.prototypes
    ((_, embeddings),) = outputs(*model, [samples], influence)
    sent = aligned(centres(embeddings, PROTOTYPES), everyones(shared, layout))
    theta = np.concatenate([result.theta, sent.astype(result.theta.dtype).reshape(-1)])
    return replace(result, theta=theta)


def middle_of(began: SharedState, new: SharedState, layout: Layout) -> tuple[Vector, Vector]:
    """The gate's shared model: parameters [M], and prototypes [L]."""
    where = slot_slice(layout, "")
    return middle(began.theta[where], new.theta[where]), middle(began.prototypes, new.prototypes)


def everyones(shared: SharedState, layout: Layout) -> Array:
    """Everybody's prototypes [K, d] of a state."""
    return shared.theta[slot_slice(layout, GATE.name)].reshape(PROTOTYPES, -1)


def answered_by_gate(
    train: Array,
    everyone: Array,
    mine: Sequence[Output],
    theirs: Sequence[Output],
    task: Task = CLASSIFICATION,
) -> list[Said]:
    """Probabilities [n, classes], or what else the task mixes, of each set of samples, a client's validation samples first, and what they were mixed of.

    Args:
        train: embeddings [n, d] of its training samples by the shared model.
        everyone: everybody's prototypes [K, d].
        mine: what its own model gives for each set.
        theirs: what the shared one gives.
        task: what is learnt.
    """
    weigh = Gate.made(train, theirs[0][1], everyone)
    found = []
    for (logits, _), (other, embeddings) in zip(mine, theirs, strict=True):
        weights = weigh(embeddings)
        both = mixed(weights, task.shares(logits), task.shares(other))
        found.append(Said(both, Gated(weights, task.predict(logits), task.predict(other))))
    return found
