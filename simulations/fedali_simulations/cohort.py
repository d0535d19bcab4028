"""A site that simulates a cohort: it answers for many clients whose data are in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedali.data import Federation
from fedali.errors import FedaliError
from fedali.methods import Contribution, Layouts, Method, SharedState, Trained
from fedali.metrics import accuracy, macro_f1
from fedali_server.contract import ClientMetrics, RoundSettings, SiteReply
from fedali_simulations.engines import Engine, Query, Samples, TrainJob, TrainResult
from fedali_simulations.engines.base import Labels, Vector
from fedali_simulations.store import ClientStore

_TRAIN, _SAMPLE = 0, 1  # what a random stream is for
_CHUNK = 32  # clients whose trained models are in memory together


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort draws and evaluates its clients.

    Args:
        seed: of everything random.
        participation: share of the clients that train in a round, at least one.
        transductive: whether to report the published inference too, whose matches depend on the batch.
    """

    seed: int
    participation: float = 1.0
    transductive: bool = False


class Cohort:
    """Samples of all clients of a federation, ready for an engine."""

    def __init__(self, federation: Federation) -> None:
        self.classes = len(federation.class_names)
        self.names = [client.name for client in federation.clients]
        pairs = list(zip(federation.clients, federation.normalisation, strict=True))
        self.train = [Samples(c.x_train, c.y_train, n) for c, n in pairs]
        self.validation = [Samples(c.x_validation, c.y_validation, n) for c, n in pairs]
        self.test = [Samples(c.x_test, c.y_test, n) for c, n in pairs]


class CohortSite:
    """Implements ``fedali_server.contract.Site`` for some clients of a cohort.

    Args:
        cohort: data of all clients; the tests of generalisation see all of them.
        clients: indices of this site's clients.
        everyone: indices of all clients of the federation, whose test data generalisation is measured on.
        engine: what trains and predicts.
        method: what is personal, what is uploaded.
        layouts: of the model.
        settings: seed and evaluation.
    """

    def __init__(
        self,
        cohort: Cohort,
        clients: Sequence[int],
        everyone: Sequence[int],
        engine: Engine,
        method: Method,
        layouts: Layouts,
        settings: CohortSettings,
    ) -> None:
        self.cohort, self.clients, self.everyone = cohort, list(clients), list(everyone)
        self.engine, self.method, self.layouts, self.settings = engine, method, layouts, settings
        self.store = ClientStore(method, layouts)
        self.trained: dict[int, TrainResult] = {}

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """One round: train each participant, evaluate its personal model, add up what it uploads."""
        contribution, metrics = Contribution(), _Columns()
        self.trained = {}
        for client, result in self._train(self._participants(settings.round), settings.round, shared):
            if not (np.isfinite(result.theta).all() and np.isfinite(result.local_prototypes).all()):
                raise FedaliError(
                    f"{self.cohort.names[client]} diverged in round {settings.round}: its weights are not finite. "
                    "Try a lower training.learning_rate"
                )
            samples = len(self.cohort.train[client])
            metrics.add(
                client=client, samples=samples, train_loss=result.loss, train_accuracy=result.accuracy
            )
            self.store.remember(client, result.theta, result.local_prototypes)
            self.trained[client] = result
            trained = Trained(result.theta, result.local_prototypes, samples, result.occupancy)
            self.method.contribute(contribution, trained, shared, self.layouts)
        influence = self.method.influence(settings.round)
        for kind, matcher in self._inferences():
            self._personal_metrics(metrics, kind, matcher, influence, settings.generalisation)
        return SiteReply(metrics.columns, contribution)

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """The server's model on each client's test data."""
        metrics = _Columns()
        for client in self.clients:
            metrics.add(client=client, test_samples=len(self.cohort.test[client]))
        tests = tuple(self.cohort.test[client] for client in self.clients)
        influence = self.method.influence(settings.round)
        for kind, matcher in self._inferences():
            query = Query(shared.theta, shared.prototypes, tests, influence, matcher)  # type: ignore[arg-type]
            (predictions,) = self.engine.predict([query])
            for samples, predicted in zip(tests, predictions, strict=True):
                self._score(metrics, f"global{kind}", samples, predicted)
        return SiteReply(metrics.columns)

    def adapt(self, clients: Sequence[int], round_: int, shared: SharedState) -> ClientMetrics:
        """Clients that never took part: accuracy of the server's model, and after one local training from it."""
        metrics, influence = _Columns(), self.method.influence(round_)
        for client, result in self._train(clients, round_, shared):
            metrics.add(client=client, samples=len(self.cohort.train[client]))
            test = self.cohort.test[client]
            before = Query(shared.theta, shared.prototypes, (test,), influence)
            after = Query(result.theta, result.local_prototypes, (test,), influence)
            for name, predictions in zip(
                ("before", "after"), self.engine.predict([before, after]), strict=True
            ):
                self._score(metrics, name, test, predictions[0])
        return metrics.columns

    def models(self, shared: SharedState) -> Iterator[tuple[int, Vector, Vector]]:
        """Each client's personal model: theta [P] and local prototypes [L], as trained in this round if it was."""
        for client in self.clients:
            if client in self.trained:
                yield client, self.trained[client].theta, self.trained[client].local_prototypes
            else:
                yield client, *self.store.compose(client, shared)

    def _train(
        self, clients: Sequence[int], round_: int, shared: SharedState
    ) -> Iterator[tuple[int, TrainResult]]:
        influence = self.method.influence(round_)
        for start in range(0, len(clients), _CHUNK):
            chunk = clients[start : start + _CHUNK]
            jobs = (
                TrainJob(
                    self.cohort.train[client],
                    *self.store.compose(client, shared),
                    shared.theta,
                    shared.prototypes,
                    influence,
                    np.random.SeedSequence([self.settings.seed, _TRAIN, round_, client]),
                    self.method.needs_occupancy,
                )
                for client in chunk
            )
            yield from zip(chunk, self.engine.train(jobs), strict=True)

    def _participants(self, round_: int) -> list[int]:
        count = max(1, round(self.settings.participation * len(self.clients)))
        if count >= len(self.clients):
            return self.clients
        seed = np.random.SeedSequence([self.settings.seed, _SAMPLE, round_, self.clients[0]])
        return sorted(int(c) for c in np.random.default_rng(seed).choice(self.clients, count, replace=False))

    def _inferences(self) -> list[tuple[str, str]]:
        """Names' endings and matchers: each sample alone (deployment), and as published."""
        both = self.settings.transductive and self.layouts.prototypes.size > 0
        return [("", "cosine"), ("_transductive", "ot")] if both else [("", "cosine")]

    def _personal_metrics(
        self, metrics: _Columns, kind: str, matcher: str, influence: float, generalisation: bool
    ) -> None:
        everyone = tuple(self.cohort.test[c] for c in self.everyone) if generalisation else ()
        queries = (
            Query(
                result.theta,
                result.local_prototypes,
                (self.cohort.validation[client], self.cohort.test[client], *everyone),
                influence,
                matcher,  # type: ignore[arg-type]
            )
            for client, result in self.trained.items()
        )
        for client, predictions in zip(self.trained, self.engine.predict(queries), strict=True):
            if not kind:
                self._score(metrics, "validation", self.cohort.validation[client], predictions[0])
            self._score(metrics, f"personalisation{kind}", self.cohort.test[client], predictions[1])
            if generalisation:
                labels = np.concatenate([samples.y for samples in everyone])
                self._score(metrics, f"generalisation{kind}", labels, np.concatenate(predictions[2:]))

    def _score(self, metrics: _Columns, name: str, samples: Samples | Labels, predicted: Labels) -> None:
        labels = samples.y if isinstance(samples, Samples) else samples
        metrics.add(
            **{
                name: accuracy(labels, predicted),
                f"{name}_f1": macro_f1(labels, predicted, self.cohort.classes),
            }
        )


class _Columns:
    """Per-client numbers by name, each a column in the order of the clients."""

    def __init__(self) -> None:
        self.columns: ClientMetrics = {}

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self.columns.setdefault(name, []).append(float(number))
