"""Strategy, records and grid over Flower's own messages."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, RecordDict

from fedali.aggregation import WeightedSum
from fedali.cohort.contract import RoundSettings, SiteReply
from fedali.errors import FedaliError
from fedali.layout import Layout
from fedali.methods import Layouts, SharedState, Upload, build_method
from fedali_server.flower import records
from fedali_server.flower.client_app import make_client_app
from fedali_server.flower.strategy import PersonalisedStrategy
from fedali_simulations.machines.grid import LocalGrid

LAYOUTS = Layouts(Layout.of({"body": (3,), "head.w": (2,)}), Layout.of({"alp.0": (4, 2)}))
START = SharedState(np.arange(5, dtype=np.float32), np.arange(8, dtype=np.float32) ** 2)


class Counter:
    """A site whose client adds ``step`` to every weight: a training whose result is known."""

    def __init__(self, step: float, samples: int) -> None:
        self.step, self.samples, self.seen = step, samples, []

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        self.seen.append(settings.round)
        theta, prototypes = WeightedSum(), WeightedSum()
        theta.add(shared.theta + np.nan_to_num(np.float32(self.step)), self.samples)
        prototypes.add(shared.prototypes[::1], self.samples)
        if np.isnan(self.step):
            theta.total = theta.total * np.nan  # what a faulty site might send
        total = Upload({"theta": theta, "prototypes": prototypes}, clients=1, population=2)
        return SiteReply({"client": [float(self.samples)], "personalisation": [self.step]}, total)

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        return SiteReply({"client": [float(self.samples)], "global": [float(shared.theta[0])]})


def _grid(*sites):
    app = make_client_app(lambda context: sites[int(context.node_config["partition-id"])])
    return LocalGrid(app, len(sites))


def test_sites_are_weighed_by_their_samples():
    rounds = []
    strategy = PersonalisedStrategy(build_method("fedali-paper"), LAYOUTS, on_round=rounds.append)
    result = strategy.start(_grid(Counter(1, 10), Counter(4, 20)), records.from_shared(START), 2)
    shared = records.to_shared(result.arrays)
    np.testing.assert_allclose(shared.theta, START.theta + 2 * (10 + 80) / 30, rtol=1e-6)
    np.testing.assert_allclose(shared.prototypes, START.prototypes, rtol=1e-6)
    assert [r.round for r in rounds] == [1, 2]
    assert rounds[0].train == {"client": [10.0, 20.0], "personalisation": [1.0, 4.0]}
    assert rounds[1].evaluate["global"] == pytest.approx([6.0, 6.0])


def test_a_site_that_is_not_finite_is_left_out_and_the_others_go_on():
    rounds = []
    strategy = PersonalisedStrategy(build_method("fedavg"), LAYOUTS, on_round=rounds.append)
    result = strategy.start(_grid(Counter(np.nan, 10), Counter(4, 20)), records.from_shared(START), 1)
    np.testing.assert_allclose(records.to_shared(result.arrays).theta, START.theta + 4)
    assert rounds[0].train["client"] == [20.0]


def test_no_good_site_is_an_error_that_says_why():
    strategy = PersonalisedStrategy(build_method("fedavg"), LAYOUTS)
    with pytest.raises(FedaliError, match="round 1 failed: the sum of theta is not finite"):
        strategy.start(_grid(Counter(np.nan, 10)), records.from_shared(START), 1)


def test_error_replies_are_left_out():
    grid = _grid(Counter(1, 10), Counter(1, 10))
    strategy = PersonalisedStrategy(build_method("fedavg"), LAYOUTS)
    messages = list(strategy.configure_train(1, records.from_shared(START), None, grid))
    failed = [Message(Error(2, "out of memory"), reply_to=message) for message in messages]
    with pytest.raises(FedaliError, match="no site replied"):
        strategy.aggregate_train(1, failed)
    good = grid.send_and_receive(messages[:1])
    arrays, _ = strategy.aggregate_train(1, [*failed[1:], *good])
    np.testing.assert_allclose(records.to_shared(arrays).theta, START.theta + 1)


def test_a_resumed_strategy_starts_at_its_round():
    site = Counter(1, 1)
    PersonalisedStrategy(build_method("fedavg"), LAYOUTS).start(
        _grid(site), records.from_shared(START), 4, first_round=3
    )
    assert site.seen == [3, 4]


def test_a_hook_sees_the_sum_before_the_server_uses_it():
    seen, rounds = [], []

    def halved(total):
        seen.append((total.clients, total.population, total.sums["theta"].weight))
        theta = total.sums["theta"]
        theta.total /= 2
        return total

    strategy = PersonalisedStrategy(build_method("fedavg"), LAYOUTS, on_round=rounds.append, on_sum=halved)
    strategy.start(_grid(Counter(1, 1), Counter(1, 3)), records.from_shared(START), 1)
    assert seen == [(2, 4, 4.0)]
    np.testing.assert_allclose(records.to_shared(rounds[0].arrays).theta, (START.theta + 1) / 2, rtol=1e-6)


def test_a_personal_part_has_no_global_evaluation():
    rounds = []
    strategy = PersonalisedStrategy(build_method("fedper"), LAYOUTS, on_round=rounds.append)
    assert strategy.configure_evaluate(1, ArrayRecord(), None, _grid(Counter(1, 1))) == []


@pytest.mark.parametrize("sets", [0, 3])
def test_uploads_survive_the_wire(sets):
    rng = np.random.default_rng(0)
    sent = Upload({"theta": WeightedSum(rng.standard_normal(5), 3.0)}, clients=2, population=7)
    for _ in range(sets):
        sent.sets.append((float(rng.integers(1, 9)), rng.standard_normal(8).astype(np.float32)))
    for found in (records.read_upload(records.from_upload(sent)), Upload.from_bytes(sent.to_bytes())):
        np.testing.assert_array_equal(found.sums["theta"].total, sent.sums["theta"].total)
        assert found.sums["theta"].weight == 3.0
        assert set(found.sums) == {"theta"}
        assert (found.clients, found.population, found.participation) == (2, 7, 2 / 7)
        assert [weight for weight, _ in found.sets] == [weight for weight, _ in sent.sets]
        for (_, one), (_, other) in zip(found.sets, sent.sets, strict=True):
            np.testing.assert_array_equal(one, other)


def test_settings_and_state_survive_the_wire():
    content = records.instructions(RoundSettings(7, generalisation=False), records.from_shared(START))
    settings, shared = records.read_instructions(content)
    assert settings == RoundSettings(7, generalisation=False)
    np.testing.assert_array_equal(shared.theta, START.theta)
    np.testing.assert_array_equal(shared.prototypes, START.prototypes)
    with pytest.raises(FedaliError, match="no array 'theta'"):
        records.to_shared(ArrayRecord())
    assert isinstance(content, RecordDict)
