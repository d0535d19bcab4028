"""How the two numbers of the gate were chosen: on validation data, by the sum of own and everyone's accuracy.

    python -m benchmarks.gate_settings digits --seeds 0,1 --method fedavg

Trains as the scenario says, and after the last round lets clients answer with every point between both models and every quantile. Prints accuracies
on validation data alone: clients' own, and everyone's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers import PROTOTYPES
from fedali.answers import gate as gates
from fedali.answers.between import model_at
from fedali.cohort.contract import RoundSettings
from fedali.engines.outputs import Outputs
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_setup

Array = npt.NDArray[np.floating[Any]]

POINTS, QUANTILES = (0.5, 0.75, 1.0), (0.5, 0.7, 0.8, 0.9, 0.95)
_TIMES = 6  # that sets are aligned to their mean, where rounds would do it


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--method", default="fedavg")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    words = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    seeds = [int(seed) for seed in words.seeds.split(",")]
    for seed in seeds:
        for name, pair in answers_of(words.scenario, words.method, seed, words.set):
            found.setdefault(name, []).append(pair)
    sys.stdout.write(f"{words.scenario}, {words.method}, seeds {words.seeds}: validation accuracy in %\n")
    sys.stdout.write("| answer | own | everyone's | sum |\n|---|---|---|---|\n")
    for name, pairs in found.items():
        own, everyone = 100 * np.mean(pairs, axis=0)
        sys.stdout.write(f"| {name} | {own:.1f} | {everyone:.1f} | {own + everyone:.1f} |\n")


def answers_of(
    name: str, method: str, seed: int, changes: list[str]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each answer's accuracy on own and on everyone's validation data, means over clients."""
    scenario = load_scenario(name, [f"methods={method}", *changes])
    setup = build_setup(scenario, scenario.methods[0], seed)
    (site,), shared, began = setup.sites, setup.initial, setup.initial
    rounds = scenario.training.rounds
    for round_ in range(1, rounds + 1):
        began, last = shared, round_ == rounds
        settings = RoundSettings(round_, generalisation=last, influence=setup.method.influence(round_))
        upload = site.train(settings, shared).upload
        assert upload is not None
        shared = setup.method.aggregate(upload, shared, setup.layouts)
    influence, outputs, size = (
        setup.method.influence(rounds),
        Outputs(setup.model),
        setup.model.theta().numel(),
    )
    clients, sets = site.clients, [site.cohort.validation[client] for client in site.clients]
    labels = [samples.y for samples in sets]
    edges = np.cumsum([0, *map(len, labels)])

    def said(theta: Array, prototypes: Array) -> list[tuple[Array, Array]]:
        return list(outputs(theta, prototypes, sets, influence))

    def accuracy(answer: list[Array]) -> tuple[float, float]:
        right = [one.argmax(1) == np.concatenate(labels) for one in answer]
        own = [one[edges[k] : edges[k + 1]].mean() for k, one in enumerate(right)]
        return float(np.mean(own)), float(np.mean([one.mean() for one in right]))

    train = [site.cohort.train[client] for client in clients]
    embeddings = [e for _, e in outputs(began.theta[:size], began.prototypes, train, influence)]
    sent = [gates.centres(one, PROTOTYPES) for one in embeddings]
    weights = [len(samples) for samples in train]
    everyone = sent[int(np.argmax(weights))]
    for _ in range(_TIMES):
        everyone = np.average([gates.aligned(one, everyone) for one in sent], axis=0, weights=weights)
    last = np.concatenate([gates.probabilities(z) for z, _ in said(shared.theta[:size], shared.prototypes)])
    yield "shared", accuracy([last] * len(clients))
    theta = gates.middle(began.theta[:size], shared.theta[:size])
    middle = theta, gates.middle(began.prototypes, shared.prototypes)
    own = [gates.centres(e, PROTOTYPES) for _, e in outputs(*middle, train, influence)]
    seen = [e for _, e in said(*middle)]
    theirs = np.concatenate([gates.probabilities(z) for z, _ in said(*middle)])
    yield "middle of the last two shared", accuracy([theirs] * len(clients))
    models = {client: (theta[:size], local) for client, theta, local in site.models(shared)}
    for point in POINTS:
        mine = [
            np.concatenate(
                [
                    gates.probabilities(z)
                    for z, _ in said(model_at(point, models[client][0], theta), models[client][1])
                ]
            )
            for client in clients
        ]
        yield f"between, {point:g}", accuracy(mine)
        perfect = [theirs.copy() for _ in clients]
        for k, one in enumerate(perfect):
            one[edges[k] : edges[k + 1]] = mine[k][edges[k] : edges[k + 1]]
        yield f"gate that knows whose a sample is, {point:g}", accuracy(perfect)
        for name_, all_ in (("", everyone), (", all sets together", np.concatenate(own))):
            scores = [gates.scores(np.concatenate(seen), one, all_) for one in own]
            for quantile in QUANTILES if not name_ else (0.8,):
                gated = []
                for k, s in enumerate(scores):
                    of_own = s[edges[k] : edges[k + 1]]
                    gate = gates.Gate(own[k], all_, float(np.quantile(of_own, quantile)), float(of_own.std()))
                    gated.append(gates.mixed(gate.weigh(s), mine[k], theirs))
                yield f"gate, {point:g}, {100 * quantile:g} %{name_}", accuracy(gated)


if __name__ == "__main__":
    main()
