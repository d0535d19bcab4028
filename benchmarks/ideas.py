"""What was tried to make FedAli better: each idea's accuracy on validation data, own and everyone's, means over clients and seeds.

    python -m benchmarks.ideas digits --seeds 20,21,22,23,24
    python -m benchmarks.ideas digits --seeds 20,21,22,23,24 --set partition.kind=shards
    python -m benchmarks.ideas motionsense --seeds 20,21 --set split.order=time

Trains each line of ``TRAINED`` as the scenario says, no test sample read (``evaluation.on = "validation"``), and lets clients answer in different ways
after the last round. Ideas about the gate are tried on the first line.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedali.answers import PROTOTYPES, gate
from fedali.answers.between import HALFWAY, model_at
from fedali.answers.gate import Gate, centres, mixed, probabilities, scores
from fedali.cohort.contract import RoundSettings
from fedali.engines.outputs import Outputs
from fedali.methods.fedali import FedAli
from fedali.methods.fedproto import FedProto
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_setup

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep

Array = npt.NDArray[np.floating[Any]]
Pair = tuple[float, float]

TRAINED: dict[str, dict[str, Any]] = {
    "fedali": {"balance": 0.5},
    "fedali, balance 0 (FedAvg)": {"balance": 0.0},
    "fedali, balance 1": {"balance": 1.0},
    "balanced softmax, a quarter for all": {"share": 0.25},
    "rehearsal of class prototypes": {},
    "rehearsal of class prototypes with noise": {"noise": 1.0},
    "fedali-paper": {},
    "fedntd": {},
    "moon": {},
}
_NAMES = {
    "balanced softmax, a quarter for all": "benchmarks.ideas:Evenly",
    "rehearsal of class prototypes": "benchmarks.ideas:Rehearsal",
    "rehearsal of class prototypes with noise": "benchmarks.ideas:Rehearsal",
}
_LEAST = 1e-3  # of a class's share


@dataclass(frozen=True)
class Evenly(FedAli):
    """The same part of balanced softmax for every client."""

    name: ClassVar[str] = "evenly"
    share: float = 0.25

    def objective(self, step: ClientStep) -> Tensor:
        """The plain loss, and the balanced one."""
        return (1 - self.share) * step.loss() + self.share * step.balanced_loss(step.own["class_counts"])


@dataclass(frozen=True)
class Rehearsal(FedProto):
    """FedAvg that passes everybody's mean embeddings of classes through its head as if they were samples.

    Args:
        noise: how much of what the batch's samples are off their own class's mean is added.
    """

    name: ClassVar[str] = "rehearsal"
    noise: float = 0.0

    @property
    def personal_parameters(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and that of the known classes' means."""
        known = step.server["class_shares"]
        means = step.server["class_prototypes"]
        off = (step.output.embedding - means[step.batch.y]) * step.batch.weights[:, None]
        logits = step.head(step.own.model, means + self.noise * off[: len(means)].detach()).logits
        rehearsed = -(logits.log_softmax(-1).diagonal() * known).sum() / known.sum().clamp(min=1.0)
        return step.loss() + self.strength * rehearsed


@dataclass(frozen=True, eq=False)
class Ended:
    """A federation after its last round: for each set of embeddings and answers a row a sample, ``own`` says which are a client's."""

    labels: npt.NDArray[np.integer[Any]]
    own: list[slice]
    shares: Array  # of classes in each client's training data
    shared: Array  # probabilities of the middle of the last two models
    newest: Array  # of the last model
    trained: list[Array]  # each client's, logits
    halfway: list[Array]
    heads: list[Array]  # of the shared body with each client's head
    embeddings: Array  # of tested samples, under the middle
    validating: list[Array]  # of each client's validation samples
    training: list[Array]
    known: list[npt.NDArray[np.integer[Any]]]  # labels of training samples
    mine: list[Array]  # each client's prototypes
    everyone: Array
    sets: list[Array]  # as clients sent them

    def accuracy(self, answers: list[Array]) -> Pair:
        """Own and everyone's, means over clients, of what each client answers on all samples."""
        right = [answer.argmax(1) == self.labels for answer in answers]
        own = [one[place].mean() for one, place in zip(right, self.own, strict=True)]
        return float(np.mean(own)), float(np.mean([one.mean() for one in right]))

    def gated(
        self,
        everyone: Array | None = None,
        *,
        quantile: float = 0.8,
        spread: float = 1.0,
        prior: float = 0.0,
        score: Callable[[int, Array], Array] | None = None,
        personal: list[Array] | None = None,
    ) -> Pair:
        """Answers by a gate with other prototypes of everybody, or other numbers."""
        all_, answers = self.everyone if everyone is None else everyone, []
        for k, logits in enumerate(self.halfway if personal is None else personal):
            s = scores(self.embeddings, self.mine[k], all_)
            of_own = scores(self.validating[k], self.mine[k], all_)
            middle = float(np.quantile(of_own, quantile))
            weights = Gate(self.mine[k], all_, middle, spread * float(of_own.std())).weigh(s)
            if score is not None:
                weights = score(k, weights)
            shifted = logits + prior * np.log(np.maximum(self.shares[k], _LEAST))
            answers.append(mixed(weights, probabilities(shifted), self.shared))
        return self.accuracy(answers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario")
    parser.add_argument("--seeds", default="20,21,22,23,24")
    parser.add_argument("--lines", help="of those trained, between them a semicolon and a space; all without")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    words = parser.parse_args()
    seeds = [int(seed) for seed in words.seeds.split(",")]
    lines = words.lines.split("; ") if words.lines else list(TRAINED)
    if unknown := [line for line in lines if line not in TRAINED]:
        parser.error(f"no line {unknown[0]!r}; there are {'; '.join(TRAINED)}")
    changes = "".join(f" {change}" for change in words.set)
    sys.stdout.write(f"{words.scenario}{changes}, seeds {words.seeds}: validation accuracy in %\n\n")
    sys.stdout.write("| trained by | answers | own | everyone's | sum |\n|---|---|---|---|---|\n")
    for number, line in enumerate(lines):
        found: dict[str, list[Pair]] = {}
        for seed in seeds:
            end = ended(words.scenario, line, seed, words.set)
            for name, pair in [*answers(end), *(() if number else of_the_gate(end))]:
                found.setdefault(name, []).append(pair)
        for name, pairs in found.items():
            own, everyone = 100 * np.mean(pairs, axis=0)
            sys.stdout.write(f"| {line} | {name} | {own:.1f} | {everyone:.1f} | {own + everyone:.1f} |\n")
        sys.stdout.flush()


def answers(end: Ended) -> Iterator[tuple[str, Pair]]:
    """What every line may answer with."""
    clients = range(len(end.own))
    yield "trained", end.accuracy(end.trained)
    yield "newest shared model", end.accuracy([end.newest for _ in clients])
    yield "shared: middle of the last two", end.accuracy([end.shared for _ in clients])
    yield "halfway", end.accuracy(end.halfway)
    yield "gate", end.gated()
    knows = [end.shared.copy() for _ in clients]
    for one, place, logits in zip(knows, end.own, end.halfway, strict=True):
        one[place] = probabilities(logits[place])
    yield "gate that knows whose a sample is", end.accuracy(knows)


def of_the_gate(end: Ended) -> Iterator[tuple[str, Pair]]:
    """Ideas about the gate."""
    yield "gate, newest shared model", dataclasses.replace(end, shared=end.newest).gated()
    for quantile in (0.7, 0.9):
        yield f"gate, {100 * quantile:g} % quantile", end.gated(quantile=quantile)
    yield "gate, half the spread", end.gated(spread=0.5)
    yield "gate, class shares added to the client's logits", end.gated(prior=1.0)
    everything = np.concatenate(end.sets)
    yield "gate, everybody's sets as they are", end.gated(everything)
    yield "gate, k-means of everybody's sets, 256", end.gated(centres(everything, 4 * PROTOTYPES))
    yield "gate, sets go to the nearest (semi-relaxed transport)", end.gated(_nearest_means(end))

    def by_class(k: int, weights: Array) -> Array:
        """Own kind also by what classes the shared model sees."""
        odds: Array = end.shared @ (end.shares[k] / np.maximum(end.shares.mean(0), _LEAST))
        found: Array = weights * odds / (weights * odds + 1 - weights + 1e-12)
        return found

    yield "gate, and the client's class shares", end.gated(score=by_class)
    yield "gate, shared body and the client's head", end.gated(personal=end.heads)
    yield (
        "gate, half of the client's answer by its prototypes' class shares",
        end.gated(personal=_remembered(end, 64)),
    )
    yield "gate, half of it by its training samples' classes", end.gated(personal=_remembered(end, None))
    for part in (1.0, 0.25):
        yield f"gate, {100 * part:g} % of a learned one", end.gated(score=_learned(end, part))


def _remembered(end: Ended, count: int | None, near: int = 5) -> list[Array]:
    """Logarithms of probabilities: a client's model's, and the classes of the training samples around its nearest ``count`` centres, or of
    its nearest training samples, by one over the distance; half of each."""
    found, classes = [], end.shared.shape[1]
    for k, logits in enumerate(end.halfway):
        points = end.training[k] if count is None else end.mine[k]
        shares = np.zeros((len(points), classes))
        np.add.at(shares, (cdist(end.training[k], points).argmin(1), end.known[k]), 1.0)
        sums = shares.sum(1, keepdims=True)
        shares = np.where(sums > 0, shares / np.maximum(sums, 1), 1 / classes)
        far = cdist(end.embeddings, points)
        places = np.argpartition(far, min(near, len(points)) - 1, axis=1)[:, :near]
        weights = 1 / np.maximum(np.take_along_axis(far, places, 1), 1e-6)
        weights /= weights.sum(1, keepdims=True)
        memory = (weights[:, :, None] * shares[places]).sum(1)
        found.append(np.log((probabilities(logits) + memory) / 2 + 1e-12))
    return found


def _learned(end: Ended, part: float) -> Callable[[int, Array], Array]:
    """Logistic regression of a client's training embeddings against everybody's prototypes with noise, in units of its validation samples' spread."""
    noise = np.random.default_rng(0)

    def weigh(k: int, _: Array) -> Array:
        own, spread = end.training[k], end.training[k].std(0)
        others = np.repeat(end.everyone, 10, axis=0)
        others = others + 0.5 * spread * noise.normal(size=others.shape)
        learner = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=300)
        )
        learner.fit(np.concatenate([own, others]), np.repeat([1, 0], [len(own), len(others)]))
        known = [-learner.decision_function(z) for z in (end.validating[k], end.embeddings)]
        near = [scores(z, end.mine[k], end.everyone) for z in (end.validating[k], end.embeddings)]
        of_own, s = (
            part * a / known[0].std() + (1 - part) * b / near[0].std()
            for a, b in zip(known, near, strict=True)
        )
        return Gate(end.mine[k], end.everyone, float(np.quantile(of_own, 0.8)), float(of_own.std())).weigh(s)

    return weigh


def _nearest_means(end: Ended, rounds: int = 14) -> Array:
    found = np.mean(end.sets, axis=0)
    for _ in range(rounds):
        sent = []
        for one in end.sets:
            place = ((one[:, None] - found[None]) ** 2).sum(-1).argmin(1)
            moved = found.copy()
            for k in np.unique(place):
                moved[k] = one[place == k].mean(0)
            sent.append(moved)
        found = np.mean(sent, axis=0)
    return found


def ended(name: str, line: str, seed: int, changes: list[str]) -> Ended:
    """Train a line to its end."""
    scenario = load_scenario(
        name, [f"methods={_NAMES.get(line, line.partition(',')[0])}", "evaluation.on=validation", *changes]
    )
    first = scenario.methods[0]
    own = {"answer": "trained", **TRAINED[line]}
    setup = build_setup(scenario, first.model_copy(update={"options": own}), seed)
    (site,), shared, began = setup.sites, setup.initial, setup.initial
    rounds = scenario.training.rounds
    for round_ in range(1, rounds + 1):
        began, settings = (
            shared,
            RoundSettings(round_, generalisation=round_ == rounds, influence=setup.method.influence(round_)),
        )
        upload = site.train(settings, shared).upload
        assert upload is not None
        shared = setup.method.aggregate(upload, shared, setup.layouts)
    size, influence, cohort = setup.model.theta().numel(), setup.method.influence(rounds), site.cohort
    outputs = Outputs(setup.model)
    train, validating, tested = (
        [part[client] for client in site.clients] for part in (cohort.train, cohort.validation, cohort.test)
    )

    def said(theta: Array, prototypes: Array, sets: list[Any]) -> tuple[list[Array], list[Array]]:
        found = outputs(theta[:size], prototypes, sets, influence)
        return [logits for logits, _ in found], [z for _, z in found]

    answering = (
        gate.middle(began.theta, shared.theta)[:size],
        gate.middle(began.prototypes, shared.prototypes),
    )
    models = {client: (theta[:size], local) for client, theta, local in site.models(shared)}
    logits, embeddings = said(*answering, tested)
    weights = [len(samples) for samples in train]
    sets = [centres(z, PROTOTYPES) for z in said(began.theta, began.prototypes, train)[1]]
    everyone = np.average(sets, axis=0, weights=weights)
    for _ in range(rounds - 1):
        everyone = np.average([gate.aligned(one, everyone) for one in sets], axis=0, weights=weights)
    edges = np.cumsum([0, *map(len, tested)])
    counts = np.stack([np.bincount(samples.y, minlength=cohort.classes) for samples in train])
    trained = [models[client] for client in site.clients]
    between = [(model_at(HALFWAY, theta, answering[0]), local) for theta, local in trained]
    head = size - setup.model.head_layout.size
    heads = [(np.concatenate([answering[0][:head], theta[head:]]), local) for theta, local in between]
    seen = said(*answering, train)[1]
    return Ended(
        np.concatenate([samples.y for samples in tested]),
        [slice(a, b) for a, b in itertools.pairwise(edges)],
        counts / counts.sum(1, keepdims=True),
        probabilities(np.concatenate(logits)),
        probabilities(np.concatenate(said(shared.theta, shared.prototypes, tested)[0])),
        *([np.concatenate(said(*model, tested)[0]) for model in each] for each in (trained, between, heads)),
        np.concatenate(embeddings),
        said(*answering, validating)[1],
        seen,
        [samples.y for samples in train],
        [centres(z, PROTOTYPES) for z in seen],
        everyone,
        sets,
    )


if __name__ == "__main__":
    main()
