"""What is ours of the comparison with PFLlib; PFLlib itself is not needed."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch

from benchmarks.peers import checkout
from benchmarks.peers.__main__ import chosen_cases, seeds_of
from benchmarks.peers.cases import CASES
from benchmarks.peers.clients import AdamNear
from benchmarks.peers.module import Plain, flat
from benchmarks.peers.observed import accuracies, difference
from benchmarks.peers.order import OurBatches, order_of, tensors
from benchmarks.peers.ours import engine_in_double, run_in_double, run_ours
from benchmarks.peers.report import is_equal, page
from benchmarks.peers.servers import mean_by_samples
from fedali.cohort.contract import RoundSettings
from fedali.errors import FedaliError
from fedali.methods import build_method
from fedali.models import build_model
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_setup

SMALL = (
    *("training.rounds=2", "training.epochs=2", "partition.clients=4", "evaluation.transductive=false"),
    *("split.train=0.1", "split.validation=0.1", "split.test=0.8", "training.batch_size=16"),
)


def small(method, *changes):
    scenario = load_scenario("digits", [f"methods={method}", *SMALL, *changes])
    return scenario, build_setup(scenario, scenario.methods[0], 3)


@pytest.fixture(scope="module")
def fedavg():
    return small("fedavg")


def test_a_peer_sees_the_batches_that_our_engine_trains_on(fedavg):
    """One epoch after another, without padding: FedAvg by torch's own Adam on them is what our site trains."""
    scenario, setup = fedavg
    (site,) = setup.sites
    client, round_ = 2, 1
    plain = Plain(setup.model)
    optimizer = torch.optim.Adam(plain.parameters(), scenario.training.learning_rate)
    batches = OurBatches(site.cohort.train[client], 16, order_of(3, round_, client), 0, torch.float32)
    sizes = []
    for _ in range(scenario.training.epochs):
        for x, y in batches:
            sizes.append(len(y))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
    assert sum(sizes) == 2 * len(site.cohort.train[client])
    assert len(sizes) == 2 * len(batches) > 2
    site.train(RoundSettings(round_), setup.initial)
    found = {k: theta for k, theta, _ in site.models(setup.initial)}[client]
    assert np.abs(found - setup.initial.theta).max() > 1e-2
    np.testing.assert_allclose(flat(plain.parameters()), found, atol=2e-5)


def test_epochs_may_be_skipped(fedavg):
    samples = fedavg[1].sites[0].cohort.train[0]
    all_of_it = OurBatches(samples, 32, order_of(0, 5, 0), 0, torch.float64)
    later = OurBatches(samples, 32, order_of(0, 5, 0), 1, torch.float64)
    first, second = ([y.tolist() for _, y in all_of_it] for _ in range(2))
    assert [y.tolist() for _, y in later] == second != first
    x, y = tensors(samples, torch.float64)[-1]
    assert x.dtype == torch.float64
    np.testing.assert_array_equal(x, samples.batch(np.array([len(samples) - 1]))[0])
    assert y == samples.y[-1]


def test_the_plain_module_is_the_model_with_a_head_apart():
    model = build_model("cnn2d", (1, 8, 8), 5, channels=[4, 8], kernel=3, embedding=6, seed=1)
    plain, x = Plain(model), torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(plain(x), model(x).logits)
    np.testing.assert_array_equal(flat(plain.parameters()), model.theta().numpy())
    assert [p.shape for p in list(plain.parameters())[-2:]] == [p.shape for p in plain.head.parameters()]
    norms = [name for name, _ in plain.named_parameters() if "bn" in name]
    assert len(norms) == 2 * 3
    with torch.no_grad():
        plain.head.bias.add_(1.0)
    torch.testing.assert_close(plain(x), model(x).logits + 1)  # a copy


def test_adam_is_held_near_a_centre_by_the_gradient():
    start, centre = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    one, other = (start.clone().requires_grad_() for _ in range(2))
    held, plain = AdamNear([one], 0.1, 0.7), torch.optim.Adam([other], 0.1)
    for _ in range(3):
        held.zero_grad()
        one.square().sum().backward()
        held.step([centre], "cpu")
        plain.zero_grad()
        (other.square().sum() + 0.35 * (other - centre).square().sum()).backward()
        plain.step()
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


class Counted(dict):
    counts: dict


def test_prototypes_are_averaged_by_samples():
    one, other = Counted({0: torch.tensor([1.0]), 2: torch.tensor([5.0])}), Counted({0: torch.tensor([4.0])})
    one.counts, other.counts = {0: 2, 2: 7}, {0: 1}
    mean = mean_by_samples([one, other])
    assert {label: value.item() for label, value in mean.items()} == {0: 2.0, 2: 5.0}
    assert mean[1] == []  # as PFLlib has it of a class that nobody has


def test_in_double_precision_ours_is_what_a_simulation_does():
    """FedPAC's alignment has all: phases, personal parameters, shared slots and sums of a round."""
    scenario, setup = small("fedpac-align", "training.optimizer=sgd", "training.momentum=0.0")
    double = engine_in_double(setup)
    one, other = run_in_double(scenario, setup, double, 3), run_ours(scenario, setup)
    assert one.last[0][0].dtype == np.float64
    apart = one.differences(other)
    assert list(apart) == ["1", "2"]
    assert all(0 < each < 1e-5 for pair in apart.values() for each in pair)
    assert difference(one.after[1][0], one.last[0]) > 1e-3
    own, everyone = accuracies(setup, setup.sites[0].engine, other.last[1])
    settings = RoundSettings(2, generalisation=True)
    again = build_setup(scenario, scenario.methods[0], 3)
    first = again.sites[0].train(RoundSettings(1), again.initial)
    shared = again.method.aggregate(first.upload, again.initial, again.layouts)
    metrics = again.sites[0].train(settings, shared).metrics
    assert own == pytest.approx(np.mean(metrics["personalisation"]))
    assert everyone == pytest.approx(np.mean(metrics["generalisation"]))


def test_every_row_is_a_method_of_ours():
    assert len({case.title for case in CASES}) == len(CASES)
    for case in CASES:
        build_method(case.ours, dict(case.options))
    assert [case.title for case in chosen_cases("ditto, fedprox")] == ["fedprox", "fedprox, SGD", "ditto"]
    with pytest.raises(FedaliError, match="PFLlib has no 'fedprx' beside ours; did you mean 'fedprox'"):
        chosen_cases("fedprx")
    with pytest.raises(FedaliError, match="--seeds is '0;1': give whole numbers by commas"):
        seeds_of("0;1")


def test_a_checkout_that_cannot_be_had_is_one_line(tmp_path):
    with pytest.raises(
        FedaliError, match=r"PFLlib is not here and cannot be had \(.*\): give a checkout of"
    ) as raised:
        checkout.find_peer({}, tmp_path / "peers" / "PFLlib", str(tmp_path / "nowhere"))
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "peers").iterdir()) == []


def test_a_checkout_is_what_it_says(tmp_path):
    given = {checkout.GIVEN: str(tmp_path)}
    with pytest.raises(FedaliError, match=r"FEDALI_PEERS is .*: no checkout of PFLlib"):
        checkout.find_peer(given)
    (tmp_path / "system" / "flcore").mkdir(parents=True)
    (tmp_path / "system" / "flcore" / "x.py").write_text("")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "x")):
        subprocess.run((*git, *words), check=True)
    with pytest.raises(FedaliError, match=r"is PFLlib at .{7}, and the table is of d832e76: git -C"):
        checkout.find_peer(given)


def test_what_is_absent_says_so_when_it_is_used():
    absent = checkout.Absent("h5py")
    with pytest.raises(FedaliError, match=r"PFLlib asks for h5py\.File: install h5py for it"):
        absent.File("x")
    assert not hasattr(absent, "__path__")


def runs(method, *, third=1e-12, theirs=(0.9, 0.6)):
    return [
        {
            "method": method,
            "seed": seed,
            "apart": {"1": [1e-15, 1e-15], "3": [1e-13, third], "15": [1e-9, 1e-2]},
            "ours": [0.9, 0.6],
            "theirs": list(theirs),
            "as_simulated": [0.9, 0.6],
            "shuffled": [0.88 + 0.02 * seed, 0.62],
        }
        for seed in (0, 1)
    ]


def test_the_page_says_which_are_the_same():
    assert is_equal(runs("fedavg"))
    assert not is_equal(runs("fedavg", third=1e-3))
    packages = {"numpy": "2", "torch": "2"}
    where = {"processor": "A processor", "cores": 2, "python": "3.11", "packages": packages}
    results = {"commit": checkout.COMMIT, "environment": where}
    text = page({**results, "runs": [*runs("fedavg"), *runs("apfl", third=0.03, theirs=(0.8, 0.7))]})
    assert "1 of 2 rows; not apfl." in text
    assert "| fedavg | FedAvg | 1e-15 | 1e-12 | 1e-02 | 90.0 / 60.0 | 90.0 / 60.0 |" in text
    assert "| apfl | APFL | 1e-15 | 3e-02 | 1e-02 | 90.0 / 60.0 | 80.0 / 70.0 |" in text
    assert "| fedavg | 90.0 ± 0.0 | 89.0 ± 1.4 | -1.0 ± 1.4 | 60.0 ± 0.0 | 62.0 ± 0.0 | +2.0 ± 0.0 |" in text
