"""One round of a site that holds data: who takes part, what an engine makes of it, and the sum."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from fedali.data.device import Pair
from fedali.data.normalisation import Normalisation, channel_statistics, channel_sums
from fedali.engines.base import Engine, Query, Samples, TrainJob, TrainResult, Vector
from fedali.errors import CheckpointError, DataError, FedaliError, MisfitError
from fedali.layout import Layout
from fedali.methods import Trained, Upload
from fedali.slots import slot_slice
from fedali.targets import Targets
from fedali.targets import scores as scores_of
from fedali.v1 import relay_pb2
from fedali.wire.statistics import to_message
from fedali_server.gateway.rounds.bounds import Bounds
from fedali_server.gateway.rounds.orders import shared_state, weights_of
from fedali_server.gateway.rounds.round import bounded
from fedali_server.gateway.rounds.statistics import StatisticsSums, weighed
from fedali_server.gateway.rounds.sums import RoundSums, check_fits
from fedali_server.site.bundle import TrainedBundle
from fedali_server.site.files import ClientFiles
from fedali_server.site.gate import SiteGate
from fedali_server.site.given import GivenClient
from fedali_server.site.personal import PersonalParts

log = structlog.get_logger("fedali.site")

_TRAINING = 0  # second number of the entropy of a client's training, on a device as in a simulation


@dataclass(frozen=True)
class DueClient:
    """A client that a round waits for: its device's name, its files, and whether its certificate is revoked."""

    name: str
    files: ClientFiles | GivenClient
    revoked: bool


@dataclass(frozen=True)
class _Ready:
    """A client that can train, and what its personal model is evaluated on, by the metric's name."""

    number: int
    job: TrainJob
    tests: Mapping[str, Samples]


class _UnableError(FedaliError):
    """A client cannot do its part, for a reason that the server may know."""


class _RefusedError(FedaliError):
    """What a client trained cannot be used."""


class DataRound:
    """A round from its order to its outcome.

    Args:
        order: that was checked.
        bundle: that it is of.
        engine: what trains.
        personal: what clients keep; a training changes it.
        due: clients by their numbers.
        begun: when the order came, by ``time.monotonic``.

    Raises ``WireError`` for a state that is not the bundle's.
    """

    def __init__(
        self,
        order: relay_pb2.RoundOrder,
        bundle: TrainedBundle,
        engine: Engine,
        personal: PersonalParts,
        due: Mapping[int, DueClient],
        begun: float,
    ) -> None:
        self.order, self.begun = order, begun
        self.at_work: frozenset[int] = frozenset()
        self._bundle, self._engine, self._personal, self._due = bundle, engine, personal, due
        self._shared = shared_state(order, bundle.rounds)
        self._bounds, self._weights = Bounds.of(order, self._shared, bundle.rounds), weights_of(order)
        self._received = bundle.received(self._shared)
        self._gate = (
            None
            if bundle.outputs is None
            else SiteGate(bundle.outputs, personal.trained, order, self._layout)
        )
        self._reports: dict[int, relay_pb2.DeviceReport] = {}

    @property
    def seconds_left(self) -> float:
        """Until the round is over."""
        return max(0.0, self.order.seconds - (time.monotonic() - self.begun))

    def train(self) -> relay_pb2.RoundOutcome:
        """Train the clients; the sum of what they upload, and a report of each. What they keep is on the disk then."""
        self._personal.begin(self.order.run, self.order.round)
        if self._gate is not None:
            self._gate.begin(self._received)
        sums = RoundSums()
        for group in self._groups():
            began, ready, done = time.monotonic(), [], []
            for number in group:
                with self._excusing(number):
                    ready.append(self._prepare(number))
            results = self._engine.train([client.job for client in ready])
            for client, result in zip(ready, results, strict=True):
                with self._excusing(client.number):
                    if self._gate is not None:
                        result = self._gate.sent(client.job.samples, result, self._received)
                    sums.add(client.number, self._take(client, result))
                    done.append((client, result))
            for (client, _), metrics in zip(done, self._metrics(done), strict=True):
                self._done(client.number, began, len(client.job.samples), metrics)
        self._personal.commit(self.order.run, self.order.round)
        return self._outcome(sums)

    def evaluate(self) -> relay_pb2.RoundOutcome:
        """Evaluate the server's model on the clients' test data, and what clients answer with it where a gate does; a report of each."""
        self._personal.look()
        shared = self._received.theta[slot_slice(self._layout, "")], self._received.prototypes
        for group in self._groups():
            began, tests = time.monotonic(), {}
            for number in group:
                with self._excusing(number):
                    tests[number] = self._test(number)
            models = [(*shared, {"global": samples}) for samples in tests.values()]
            for (number, samples), scores in zip(tests.items(), self._scores(models), strict=True):
                with self._excusing(number):
                    answers = {} if self._gate is None else self._answers(self._gate, number, samples)
                    self._done(number, began, len(samples), {**scores, **answers})
        return self._outcome(RoundSums())

    def statistics(self) -> relay_pb2.RoundOutcome:
        """Add up the clients' training data, channel by channel; a report of each. Nothing else changes."""
        sums = StatisticsSums()
        for group in self._groups():
            for number in group:
                began = time.monotonic()
                with self._excusing(number):
                    x, _ = self._due[number].files.train(self._bundle.manifest)
                    try:
                        self._bounds.check_samples(len(x))
                    except DataError as error:
                        raise _RefusedError(str(error)) from None
                    sums.add(number, weighed(channel_sums(x), len(x), self._weights.of(number, len(x))))
                    self._done(number, began, len(x), {})
        outcome, total = self._outcome(RoundSums()), sums.total()
        if total is not None:
            outcome.statistics.CopyFrom(to_message(total))
        return outcome

    @property
    def _layout(self) -> Layout:
        return self._bundle.manifest.layouts.parameters

    def _groups(self) -> Iterator[Sequence[int]]:
        """Numbers of clients that are trained at once. Others are reported: away, refused, or late when time is up."""
        ready = []
        for number, client in self._due.items():
            if client.revoked:
                self._report(number, "refused", "its certificate is revoked")
            elif not client.files.there:
                self._report(number, "offline", "there are no data of it at its site")
            else:
                ready.append(number)
        size = self._engine.cohort_size
        for first in range(0, len(ready), size):
            if not self.seconds_left:
                for number in ready[first:]:
                    self._report(number, "late", "did not answer in time")
                return
            self.at_work = frozenset(ready[first : first + size])
            yield ready[first : first + size]

    def _prepare(self, number: int) -> _Ready:
        files, bundle, order, shared = self._due[number].files, self._bundle, self.order, self._received
        x, y = files.train(bundle.manifest)
        own = {
            "validation": files.validation(bundle.manifest),
            "personalisation": files.test(bundle.manifest),
        }
        normalisation = self._normalisation(number, x)
        there = number in self._personal
        theta, local = self._personal.compose(number, shared) if there else bundle.start(self._shared)
        entropy = np.random.SeedSequence([order.seed, _TRAINING, order.round, number])
        known = bundle.manifest.known
        job = TrainJob(
            Samples(x, y, normalisation),
            theta[:known],
            local,
            shared.theta[:known],
            shared.prototypes,
            order.influence,
            entropy,
            bundle.manifest.schedule.factor(order.round),
        )
        if bundle.manifest.normalisation.kind == "client":
            self._personal.normalisations[number] = normalisation
        return _Ready(number, job, {name: Samples(*pair, normalisation) for name, pair in _given(own)})

    def _take(self, client: _Ready, result: TrainResult) -> Upload:
        """Keep what is personal; what the client adds to the sum."""
        if not (np.isfinite(result.theta).all() and np.isfinite(result.local_prototypes).all()):
            raise _UnableError("training diverged on this device")
        self._personal.remember(client.number, result.theta, result.local_prototypes)
        if self._gate is not None:
            answer = result.theta[slot_slice(self._layout, self._bundle.method.answer_slot)]
            self._gate.keep(client.number, answer, result.local_prototypes)
        model, samples = self._bundle.rounds, len(client.job.samples)
        weight = self._weights.of(client.number, samples)
        trained = Trained(result.theta, result.local_prototypes, weight)
        try:
            self._bounds.check(result.theta[model.shared], result.local_prototypes)
            self._bounds.check_samples(samples)
            upload = self._bundle.method.upload(trained, self._shared, model.layouts)
            return check_fits(upload, len(self._due))
        except DataError as error:
            raise _RefusedError(str(error)) from None
        except FedaliError as error:
            raise _RefusedError(f"the update cannot be aligned: {error}") from None

    def _metrics(self, done: Sequence[tuple[_Ready, TrainResult]]) -> Iterator[dict[str, float]]:
        """Of each client's training, and of its personal model."""
        where = slot_slice(self._layout, self._bundle.method.answer_slot)
        models = [
            (result.theta[where], result.local_prototypes, {} if self._gate is not None else client.tests)
            for client, result in done
        ]
        for (_, result), scores in zip(done, self._scores(models), strict=True):
            yield {"train_loss": result.loss, "train_accuracy": result.accuracy, **scores}

    def _scores(
        self, models: Sequence[tuple[Vector, Vector, Mapping[str, Samples]]]
    ) -> Iterator[dict[str, float]]:
        """Of each theta [P] and prototypes [L] on its samples, by the metric's name."""
        targets, influence = Targets(self._bundle.manifest.classes), self.order.influence
        queries = (
            Query(theta, prototypes, tuple(tests.values()), influence)
            for theta, prototypes, tests in models
            if tests
        )
        answers = self._engine.predict(queries)
        for _, _, tests in models:
            scores: dict[str, float] = {}
            for (name, samples), found in zip(tests.items(), next(answers) if tests else (), strict=True):
                scores |= scores_of(name, samples.y, found, targets)
            yield scores

    def _answers(self, gate: SiteGate, number: int, test: Samples) -> dict[str, float]:
        """How good what a client answers with the new model is, where it trained in the round that made it."""
        files, manifest = self._due[number].files, self._bundle.manifest
        train, validation = files.train(manifest), files.validation(manifest)
        pairs = {
            "validation": validation or (train[0][:0], train[1][:0]),
            "personalisation": (test.x, test.y),
        }
        sets = {name: Samples(*pair, test.normalisation) for name, pair in pairs.items()}
        found = gate.answers(number, self._received, Samples(*train, test.normalisation), list(sets.values()))
        scores: dict[str, float] = {}
        for (name, samples), said in zip(sets.items(), found or (), strict=found is not None):
            if len(samples):
                scores |= scores_of(name, samples.y, said.argmax(1), Targets(manifest.classes))
        return scores

    def _test(self, number: int) -> Samples:
        files, manifest = self._due[number].files, self._bundle.manifest
        found = files.test(manifest)
        if found is None:
            raise _UnableError("there are no test data here to evaluate the server's model on")
        return Samples(*found, self._normalisation(number, files.train(manifest)[0]))

    def _normalisation(self, number: int, x: npt.NDArray[Any]) -> Normalisation:
        """A client's own of its first training data ``x``, where the bundle leaves it to clients."""
        if self._bundle.manifest.normalisation.kind != "client":
            return self._bundle.normalisation
        return self._personal.normalisations.get(number) or channel_statistics([x])

    @contextmanager
    def _excusing(self, number: int) -> Iterator[None]:
        """Go on without a client, with a reason that tells nothing of its data; this site's log has all of it."""
        try:
            yield
        except FedaliError as error:
            refused = isinstance(error, _RefusedError)
            self._report(number, "refused" if refused else "declined", _reason(error))
            log.warning("not counted", device=self._due[number].name, why=str(error))

    def _done(self, number: int, began: float, samples: int, metrics: Mapping[str, float]) -> None:
        weight = self._weights.of(number, samples)
        report = self._report(number, "done", bounded(samples, weight), time.monotonic() - began)
        report.samples, report.weight = samples, weight
        report.metrics.update(metrics)

    def _report(
        self, number: int, state: str, reason: str = "", seconds: float = 0.0
    ) -> relay_pb2.DeviceReport:
        self._reports[number] = relay_pb2.DeviceReport(
            device=self._due[number].name, number=number, state=state, reason=reason, seconds=seconds
        )
        return self._reports[number]

    def _outcome(self, sums: RoundSums) -> relay_pb2.RoundOutcome:
        return relay_pb2.RoundOutcome(
            upload=sums.upload(len(self._due)).to_bytes() if sums.members else b"",
            devices=[self._reports[number] for number in self._due],
        )


def _given(pairs: Mapping[str, Pair | None]) -> Iterator[tuple[str, Pair]]:
    return ((name, pair) for name, pair in pairs.items() if pair is not None)


def _reason(error: FedaliError) -> str:
    """The words that a device would have."""
    if isinstance(error, (_UnableError, _RefusedError)):
        return str(error)
    if isinstance(error, MisfitError):
        return error.public
    if isinstance(error, DataError):
        return "this device's data do not fit the model, or cannot be read"
    if isinstance(error, CheckpointError):
        return "this device's state is damaged"
    return "this device cannot do it now; its site's log says why"
