"""A site that simulates a cohort: it answers for many clients whose data are in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedali.cohort.answering import Answering, Candidate
from fedali.cohort.calibration import Calibration
from fedali.cohort.contract import ClientMetrics, RoundSettings, SiteReply
from fedali.cohort.newcomers import labelled, stream
from fedali.cohort.recordfile import RecordFile, as_vector
from fedali.cohort.samples import Cohort as Cohort
from fedali.cohort.sampling.sampler import Draw, Sampler, uniformly
from fedali.cohort.store import ClientStore, Table
from fedali.cohort.tensorfile import Piece
from fedali.engines.base import Engine, Labels, Query, Samples, TrainJob, TrainResult, Vector
from fedali.engines.outputs import Outputs
from fedali.errors import DivergedError
from fedali.methods import Layouts, Method, SharedState, Trained, Upload
from fedali.optimizers.schedules import CONSTANT, RateSchedule
from fedali.slots import slot_slice

_TRAIN, _TEST = 0, 2  # what a random stream is for


@dataclass(frozen=True)
class CohortSettings:
    """How a cohort draws and evaluates its clients.

    Args:
        seed: of everything random.
        participation: share of the clients that train in a round, at least one.
        transductive: whether to report the published inference too, whose matches depend on the batch.
        generalisation_clients: how many of a round's participants are tested on everyone's data, of all sites
            together; 0 for all. A site draws its share, at least one.
        keep_trained: whether ``models`` and ``pieces`` should know a round's trained models; they go to a file.
        calibration: whether to measure it, where everyone's data are tested.
        unseen_samples: with how many labelled samples ``adapt`` tries it, besides all.
        schedule: of the learning rate over rounds; ``adapt`` is outside of them.
    """

    seed: int
    participation: float = 1.0
    transductive: bool = False
    generalisation_clients: int = 0
    keep_trained: bool = True
    calibration: bool = True
    unseen_samples: tuple[int, ...] = ()
    schedule: RateSchedule = CONSTANT


class CohortSite:
    """Implements ``fedali.cohort.contract.Site`` for some clients of a cohort.

    Args:
        cohort: data of all clients; the tests of generalisation see all of them.
        clients: indices of this site's clients.
        everyone: indices of all clients of the federation, whose test data generalisation is measured on.
        engine: what trains and predicts.
        method: what is personal, what is uploaded.
        layouts: of the model.
        settings: seed and evaluation.
        store: what clients keep; sites of one process may share it. In a temporary file without.
        outputs: of the model: for calibration, and where clients answer with something else than their trained model.
        sampler: draws the clients of a round; uniformly without.
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
        store: ClientStore | None = None,
        outputs: Outputs | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.cohort, self.everyone = cohort, list(everyone)
        self.clients = clients if isinstance(clients, range) else list(clients)
        self.sampler, self._ids = sampler, np.asarray(self.clients, np.int64)
        self.tells_who = sampler is not None
        self.engine, self.method, self.layouts, self.settings = engine, method, layouts, settings
        self.store = ClientStore(method, layouts) if store is None else store
        self._answer = slot_slice(layouts.parameters, method.answer_slot)
        self._labels = _joined([cohort.test[client] for client in self.everyone])
        self._answering: Answering | None = None
        if outputs is not None and method.answer != "trained":
            sets = cohort.train, cohort.validation, cohort.test
            self._answering = Answering(
                *(method, layouts, outputs, *sets, everyone, settings.calibration),
                *(cohort.task, cohort.targets),
            )
        self._calibration = Calibration(outputs) if outputs is not None and settings.calibration else None
        self._size = layouts.parameters.size if self._answering is None else self._answering.size
        self._trained: dict[int, int] = {}  # client -> where its model of this round is in the scratch file
        self._scratch: RecordFile | None = None

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """One round: train each participant, evaluate its personal model, add up what it uploads."""
        everything, metrics = Upload(population=len(self.clients)), _Columns()
        drawn = self._draw(settings.round, shared)
        participants = drawn.clients
        tested = self._tested_on_everyone(participants, settings)
        self._trained, answering = {}, self._answering
        if answering is not None:
            answering.begin(shared)
        for chunk in self._chunks(participants):
            results = []
            for client, result in zip(chunk, self._train(chunk, settings.round, shared), strict=True):
                self._check(client, result, settings.round)
                if answering is not None:
                    result = answering.sent(client, result, settings.round, shared)
                results.append(result)
                samples = len(self.cohort.train[client])
                seen = {self.cohort.task.train_name: result.accuracy}
                metrics.add(client=client, samples=samples, train_loss=result.loss, **seen)
                metrics.add(**drawn.numbers.get(client, {}))
                self.store.remember(client, result.theta, result.local_prototypes)
                if answering is not None or (self.settings.keep_trained and settings.generalisation):
                    self._keep(client, result)
                if self.sampler is not None:
                    self.sampler.note(client, result.loss)
                weight = drawn.weights.get(client, samples)
                trained = Trained(result.theta, result.local_prototypes, weight, result.occupancy)
                arrived = self.received(client, trained, shared)
                everything += self.method.upload(arrived, shared, self.layouts)
            if answering is None:
                self._test(metrics, chunk, results, settings, tested)
                self._calibrate(metrics, chunk, results, settings, tested)
        return SiteReply(metrics.columns, everything, (drawn.report(),) if self.tells_who else ())

    def received(self, client: int, trained: Trained, shared: SharedState) -> Trained:
        """What of a client's training arrives where it is added up: here all of it, bit by bit. A hook for encodings and bounds."""
        return trained

    def checkpoint(self) -> Table:
        """What this site has to know to go on, besides what clients keep, for ``restore``."""
        return {}

    def restore(self, table: Table) -> None:
        """Take up a ``checkpoint``, or begin anew where it is empty."""

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """The server's model on each client's test data, where it is due; and clients' answers, where those wait for it."""
        metrics = _Columns() if self._answering is None else self._answers(self._answering, settings, shared)
        if self._answering is not None and not settings.generalisation:
            return SiteReply(metrics.columns)
        for client in self.clients:
            metrics.add(test_samples=len(self.cohort.test[client]))
            if self._answering is None:
                metrics.add(client=client)
        tests = tuple(self.cohort.test[client] for client in self.clients)
        influence = self.method.influence(settings.round)
        for kind, matcher in self._inferences():
            query = Query(self._server(shared), shared.prototypes, tests, influence, matcher)  # type: ignore[arg-type]
            (predictions,) = self.engine.predict([query])
            for samples, predicted in zip(tests, predictions, strict=True):
                self._score(metrics, f"global{kind}", samples, predicted)
        if self._calibration is not None:
            for error in self._calibration(self._server(shared), shared.prototypes, tests, influence):
                metrics.add(global_ece=error)
        return SiteReply(metrics.columns)

    def _answers(self, answering: Answering, settings: RoundSettings, shared: SharedState) -> _Columns:
        """What the round's participants answer, and how good that is; NaN of the others."""
        candidates = []
        for client in self._trained:
            whole = self._read_trained(client)
            split = self.layouts.parameters.size
            candidates.append(Candidate(client, whole[:split][self._answer], whole[split:]))
        tested = self._tested_on_everyone(list(self._trained), settings)
        found = answering.evaluate(candidates, settings.round, shared, tested)
        metrics, names = _Columns(), dict.fromkeys(name for numbers in found.values() for name in numbers)
        for client in self.clients:
            metrics.add(client=client, **{name: found.get(client, {}).get(name, math.nan) for name in names})
        return metrics

    def adapt(self, clients: Sequence[int], round_: int, shared: SharedState) -> ClientMetrics:
        """Clients that never took part: accuracy of the server's model, and of their answer after one local training from it.

        ``after_<k>``: with k labelled samples (``unseen_samples``), ``after_0``: with none, but what the server's model says of them;
        ``after``: with all of their training samples.
        """
        metrics, influence = _Columns(), self.method.influence(round_)
        for client in clients:
            train, test = self.cohort.train[client], self.cohort.test[client]
            metrics.add(client=client, samples=len(train))

            def theirs(samples: Samples) -> Labels:
                query = Query(self._server(shared), shared.prototypes, (samples,), influence)
                return next(iter(self.engine.predict([query])))[0]

            self._score(metrics, "before", test, theirs(test))
            seed = stream(self.settings.seed, client)
            known = dict(labelled(train, self.settings.unseen_samples, seed, theirs))
            trained = self._train([client] * len(known), round_, shared, list(known.values()))
            for (name, samples), result in zip(known.items(), trained, strict=True):
                model = result.theta[self._answer], result.local_prototypes
                if self._answering is None:
                    after = Query(*model, (test,), influence)
                    (predicted,) = next(iter(self.engine.predict([after])))
                else:
                    one = Candidate(client, *model)
                    predicted = self._answering.newcomer(one, samples, round_, shared)
                self._score(metrics, name, test, predicted)
        return metrics.columns

    def models(self, shared: SharedState) -> Iterator[tuple[int, Vector, Vector]]:
        """Each client's personal model: theta [P] and local prototypes [L], as trained in this round if it was.

        Trained models are known where ``keep_trained`` and the round's ``generalisation`` asked for them.
        """
        for client in self.clients:
            if client in self._trained:
                model = self._read_trained(client)
                size = self.layouts.parameters.size
                yield client, model[:size], model[size:]
            else:
                yield client, *self.store.compose(client, shared)

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """What the shared state does not say of each client's personal model: see ``RunFolder.write_best``."""
        whole = {"theta": self.layouts.parameters.size, "local_prototypes": self.layouts.prototypes.size}
        for client in self.clients:
            if client in self._trained:
                yield client, Piece(whole, partial(self._read_trained, client))
            elif client in self.store:
                yield client, Piece(self.store.sizes, partial(self.store.record, client))

    def _server(self, shared: SharedState) -> Vector:
        """The server's model [M]."""
        return shared.theta[slot_slice(self.layouts.parameters, "")]

    def _chunks(self, clients: Sequence[int]) -> Iterator[Sequence[int]]:
        size = self.engine.cohort_size
        return (clients[start : start + size] for start in range(0, len(clients), size))

    def _train(
        self,
        clients: Sequence[int],
        round_: int,
        shared: SharedState,
        sets: Sequence[Samples] | None = None,
    ) -> Iterator[TrainResult]:
        """Train each client with its training samples, or, outside of rounds, with its set of ``sets``."""
        influence = self.method.influence(round_)
        factor = self.settings.schedule.factor(round_) if sets is None else 1.0
        jobs = (
            TrainJob(
                samples,
                *self._start(client, shared),
                shared.theta[: self._size],
                shared.prototypes,
                influence,
                np.random.SeedSequence([self.settings.seed, _TRAIN, round_, client]),
                factor,
            )
            for client, samples in zip(clients, sets or [self.cohort.train[c] for c in clients], strict=True)
        )
        yield from self.engine.train(jobs)

    def _start(self, client: int, shared: SharedState) -> tuple[Vector, Vector]:
        """What a client's training starts from."""
        theta, prototypes = self.store.compose(client, shared)
        return theta[: self._size], prototypes

    def _check(self, client: int, result: TrainResult, round_: int) -> None:
        if not (np.isfinite(result.theta).all() and np.isfinite(result.local_prototypes).all()):
            raise DivergedError(
                f"{self.cohort.name(client)} diverged in round {round_}: its weights are not finite. "
                "Try a lower training.learning_rate"
            )

    def _keep(self, client: int, result: TrainResult) -> None:
        if self._scratch is None:
            self._scratch = self.store.scratch(self.layouts.parameters.size + self.layouts.prototypes.size)
        self._trained[client] = len(self._trained)
        self._scratch.write(self._trained[client], result.theta, result.local_prototypes)

    def _read_trained(self, client: int) -> Vector:
        assert self._scratch is not None
        return as_vector(self._scratch.read(self._trained[client]))

    def _draw(self, round_: int, shared: SharedState) -> Draw:
        """Who trains in a round that begins with ``shared``."""
        share = self.settings.participation
        if self.sampler is not None:
            return self.sampler.draw(round_, self._ids, share)
        count = max(1, round(share * len(self.clients)))
        return Draw(uniformly(self._ids, count, self.settings.seed, round_).tolist())

    def _tested_on_everyone(self, participants: Sequence[int], settings: RoundSettings) -> set[int]:
        """Participants whose generalisation is measured."""
        if not settings.generalisation:
            return set()
        wanted = self.settings.generalisation_clients
        count = max(1, round(wanted * len(self.clients) / len(self.everyone)))
        if not wanted or count >= len(participants):
            return set(participants)
        seed = np.random.SeedSequence([self.settings.seed, _TEST, settings.round, self.clients[0]])
        return {int(c) for c in np.random.default_rng(seed).choice(participants, count, replace=False)}

    def _inferences(self) -> list[tuple[str, str]]:
        """Names' endings and matchers: each sample alone (deployment), and as published."""
        both = self.settings.transductive and self.layouts.prototypes.size > 0
        return [("", "cosine"), ("_transductive", "ot")] if both else [("", "cosine")]

    def _test(
        self,
        metrics: _Columns,
        clients: Sequence[int],
        results: Sequence[TrainResult],
        settings: RoundSettings,
        tested: set[int],
    ) -> None:
        """Personal models on their own data, and those of ``tested`` on everyone's."""
        everyone = tuple(self.cohort.test[client] for client in self.everyone) if tested else ()
        influence = self.method.influence(settings.round)
        for kind, matcher in self._inferences():
            queries = (
                Query(
                    result.theta[self._answer],
                    result.local_prototypes,
                    (
                        self.cohort.validation[client],
                        self.cohort.test[client],
                        *(everyone if client in tested else ()),
                    ),
                    influence,
                    matcher,  # type: ignore[arg-type]
                )
                for client, result in zip(clients, results, strict=True)
            )
            for client, predictions in zip(clients, self.engine.predict(queries), strict=True):
                if not kind:
                    self._score(metrics, "validation", self.cohort.validation[client], predictions[0])
                own, name = f"personalisation{kind}", f"generalisation{kind}"
                found = self._score(metrics, own, self.cohort.test[client], predictions[1])
                if client in tested:
                    self._score(metrics, name, self._labels, np.concatenate(predictions[2:]))
                elif settings.generalisation:
                    metrics.add(**{f"{name}{column.removeprefix(own)}": math.nan for column in found})

    def _calibrate(
        self,
        metrics: _Columns,
        clients: Sequence[int],
        results: Sequence[TrainResult],
        settings: RoundSettings,
        tested: set[int],
    ) -> None:
        """Calibration of what ``_test`` has tested, in rounds where everyone's data are tested."""
        if self._calibration is None or not settings.generalisation:
            return
        influence = self.method.influence(settings.round)
        for client, result in zip(clients, results, strict=True):
            model, own = (result.theta[self._answer], result.local_prototypes), self.cohort.test[client]
            (error,), of_all = self._calibration(*model, [own], influence), math.nan
            if client in tested:
                everyone = [self.cohort.test[other] for other in self.everyone]
                of_all = self._calibration.together(*model, everyone, influence)
            metrics.add(personalisation_ece=error, generalisation_ece=of_all)

    def _score(
        self, metrics: _Columns, name: str, samples: Samples | Labels, predicted: Labels
    ) -> Mapping[str, float]:
        labels = samples.y if isinstance(samples, Samples) else samples
        found = self.cohort.task.scores(name, labels, predicted, self.cohort.targets)
        metrics.add(**found)
        return found


def _joined(sets: Sequence[Samples]) -> Labels:
    return np.concatenate([samples.y for samples in sets]) if sets else np.empty(0, np.int64)


class _Columns:
    """Per-client numbers by name, each a column in the order of the clients."""

    def __init__(self) -> None:
        self.columns: ClientMetrics = {}

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self.columns.setdefault(name, []).append(float(number))
