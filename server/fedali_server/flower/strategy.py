"""A Flower strategy for personalised methods: sites reply with sums, the method makes the next shared state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedali.cohort.contract import ClientMetrics, RoundSettings
from fedali.cohort.weights import Weights
from fedali.errors import FedaliError
from fedali.methods import Layouts, Method, Upload
from fedali.methods.base import shared_indices
from fedali_server.flower import records

log = structlog.get_logger("fedali.server")


@dataclass(frozen=True)
class RoundResult:
    """A finished round: the new shared state, and per-client metrics of training and of the server's model.

    ``reports`` are what sites say of their devices, of training and evaluation; see ``fedali_server.flower.relay_records``.
    """

    round: int
    arrays: ArrayRecord
    train: ClientMetrics = field(default_factory=dict)
    evaluate: ClientMetrics = field(default_factory=dict)
    reports: tuple[dict[str, Any], ...] = ()


class PersonalisedStrategy(Strategy):
    """Drives a personalised method over Flower's Message API, on any ``Grid``.

    Args:
        method: what is shared, and how uploads become the next shared state.
        layouts: of the model.
        on_round: called after each round; writes checkpoints and metrics. The round counts as done when it returns.
        generalisation_every: rounds between evaluations of generalisation; the last round always has one.
        ended: asked after each round whether it was the last one, however many there could be.
        on_sum: sees all that the sites sent together, and gives what the method makes the next state of: for noise, or another mean.
        weights: by a site's node, what its clients may weigh in the next round; whatever they say without.
        empty_rounds: how many rounds in a row may pass without any upload, and so without a change; in a deployment all
            devices may be away for a while.
    """

    def __init__(
        self,
        method: Method,
        layouts: Layouts,
        *,
        on_round: Callable[[RoundResult], None] | None = None,
        generalisation_every: int = 1,
        empty_rounds: int = 0,
        on_sum: Callable[[Upload], Upload] | None = None,
        weights: Callable[[int], Weights] = lambda _: Weights(),
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.method, self.layouts = method, layouts
        self.on_round, self._ended = on_round, ended
        self.on_sum, self._weights = on_sum, weights
        self.generalisation_every, self.empty_rounds = generalisation_every, empty_rounds
        self._last_round, self._empty = 0, 0
        self._arrays = ArrayRecord()
        self._train: ClientMetrics = {}
        self._sites: list[int] = []
        self._reports: list[dict[str, Any]] = []

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        *,
        first_round: int = 1,
    ) -> Result:
        """Run rounds ``first_round`` to ``num_rounds``, from ``initial_arrays`` (see ``records.from_shared``).

        Flower's own loop always starts at round 1; to resume, pass a checkpoint's arrays and the round after it.
        ``train_config``, ``evaluate_config`` and ``evaluate_fn`` belong to the base class and are not used.
        """
        self._last_round = num_rounds
        result = Result(arrays=initial_arrays)
        for round_ in range(first_round, num_rounds + 1):
            self._reports = []
            messages = self.configure_train(round_, result.arrays, ConfigRecord(), grid)
            arrays, _ = self.aggregate_train(round_, grid.send_and_receive(messages, timeout=timeout))
            result.arrays = arrays
            messages = self.configure_evaluate(round_, arrays, ConfigRecord(), grid)
            evaluated = self._collect(grid.send_and_receive(messages, timeout=timeout), round_)
            if self.on_round is not None:
                metrics = self._train, _join(r for _, r in evaluated)
                reports = sorted(self._reports, key=lambda report: int(report.get("number", 0)))
                self.on_round(RoundResult(round_, arrays, *metrics, tuple(reports)))
            if self._ended():
                break
        return result

    def settings(self, round_: int) -> RoundSettings:
        """Settings of a round."""
        due = round_ == self._last_round or round_ % self.generalisation_every == 0
        return RoundSettings(round_, generalisation=due, influence=self.method.influence(round_))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message to every site; a site draws its clients of the round itself."""
        self._arrays = arrays
        return self._messages(server_round, arrays, grid, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord | None]:
        """The next shared state. A site whose reply is an error, not finite or of wrong shape is left out, and logged.

        Raises ``FedaliError`` when no site is left, more than ``empty_rounds`` times in a row.
        """
        total, metrics, refused = Upload(), [], []
        sizes = self._sizes
        for message, clients in self._collect(replies, server_round):
            try:
                upload = records.read_upload(message.content)
                upload.check_sizes(sizes)
                total += upload
                metrics.append(clients)
            except FedaliError as error:
                refused.append(str(error))
                log.warning(
                    "reply refused", round=server_round, site=message.metadata.src_node_id, why=str(error)
                )
        self._train = _join(metrics)
        if not self._train.get("client"):
            self._empty += 1
            why = refused[0] if refused else "no site replied"
            if self._empty > self.empty_rounds:
                hint = ". A lower learning rate helps against divergence" if refused else ""
                raise FedaliError(f"round {server_round} failed: {why}{hint}")
            log.warning("a round without an upload changes nothing", round=server_round, why=why)
            return self._arrays, None
        self._empty = 0
        if self.on_sum is not None:
            total = self.on_sum(total)
        shared = self.method.aggregate(total, records.to_shared(self._arrays), self.layouts)
        return records.from_shared(shared), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Every site evaluates the server's model, where the method has one and the round is due; and what its clients answer with now."""
        due = self.method.has_global_model and self.settings(server_round).generalisation
        if not (due or self.method.answer != "trained"):
            return []
        return self._messages(server_round, arrays, grid, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Per-client metrics of all sites, as one record."""
        return MetricRecord(dict(_join(clients for _, clients in self._collect(replies, server_round))))

    def summary(self) -> None:
        """Log what will run."""
        log.info("strategy", method=self.method.name, parameters=self.layouts.parameters.size)

    @property
    def _sizes(self) -> dict[str, int]:
        """Lengths of what an upload of this model holds."""
        shared = shared_indices(self.method, self.layouts.parameters).size
        return {"theta": shared, "prototypes": self.layouts.prototypes.size}

    def _messages(self, round_: int, arrays: ArrayRecord, grid: Grid, kind: str) -> list[Message]:
        settings, self._sites = self.settings(round_), list(grid.get_node_ids())
        messages = []
        for node in self._sites:
            weights = self._weights(node) if kind == MessageType.TRAIN else Weights()
            content = records.instructions(replace(settings, weights=weights), arrays)
            messages.append(Message(content, node, kind, group_id=str(round_)))
        return messages

    def _collect(self, replies: Iterable[Message], round_: int) -> list[tuple[Message, ClientMetrics]]:
        """Good replies in the grid's order of sites, so that sums do not depend on who answered first."""
        good = []
        for message in replies:
            if message.has_error():
                log.warning(
                    "site failed",
                    round=round_,
                    reply_to=message.metadata.reply_to_message_id,
                    why=message.error.reason,
                )
                continue
            columns = message.content.metric_records["clients"].items()
            clients = {
                name: [float(v) for v in values] for name, values in columns if isinstance(values, list)
            }
            good.append((message, clients))
            kind = message.metadata.message_type
            self._reports += [{**report, "kind": kind} for report in records.read_reports(message.content)]
        places = {site: place for place, site in enumerate(self._sites)}
        return sorted(good, key=lambda pair: places.get(pair[0].metadata.src_node_id, len(places)))


def _join(parts: Iterable[ClientMetrics]) -> ClientMetrics:
    """The sites' columns one after another."""
    joined: ClientMetrics = {}
    for part in parts:
        for name, values in part.items():
            joined.setdefault(name, []).extend(values)
    return joined
