"""What the evaluation of whole simulations says of clients besides accuracy, worked out anew from the models that they leave."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from scipy.special import expit, softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from fedali.answers.gate import centres
from fedali.cohort.newcomers import few, stream
from fedali.engines.base import Samples
from fedali_simulations import compare_runs, load_scenario, simulate
from fedali_simulations.data import load_federation
from fedali_simulations.jobs import Job
from fedali_simulations.run import run_job
from fedali_simulations.setup import build_plan

SMALL = [
    "partition.clients=5",
    "training.rounds=2",
    "training.epochs=1",
    "evaluation.generalisation_every=2",
    "evaluation.transductive=false",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "seeds=1",
]


def run(folder, method, *overrides, round_=2):
    scenario = load_scenario("digits", [*SMALL, f"methods={method}", *overrides])
    run_job(Job(scenario, scenario.methods[0], 0, folder, 1))
    return scenario, pd.read_parquet(folder / f"metrics/{round_:05d}.parquet").set_index("client")


@pytest.fixture(scope="module")
def fedavg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured") / "fedavg"
    return folder, *run(folder, "fedavg")


def gaps(labels, said):
    """The calibration error, sample by sample."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for label, row in zip(labels, said, strict=True):
        bins.setdefault(int(np.ceil(row.max() * 15)), []).append((row.max(), row.argmax() == label))
    return sum(abs(sum(right - sure for sure, right in held)) for held in bins.values()) / len(labels)


def test_calibration_is_that_of_the_models_in_the_folder(fedavg):
    folder, scenario, rows = fedavg
    federation = load_federation(scenario, 0)
    model = build_plan(scenario, scenario.methods[0], 0).model.double()

    def says(client, normalisation):
        with torch.no_grad():
            x = torch.from_numpy(normalisation(client.x_test)).double()
            return torch.softmax(model(x).logits, 1).numpy()

    for path in sorted((folder / "personal").glob("*.safetensors")):
        model.load_state_dict({n: v.double() for n, v in load_file(path).items()}, strict=False)
        said = [says(*pair) for pair in zip(federation.clients, federation.normalisation, strict=True)]
        labels = [client.y_test for client in federation.clients]
        (own,) = [k for k, client in enumerate(federation.clients) if client.name == path.stem]
        row = rows.loc[path.stem]
        assert row["personalisation_ece"] == pytest.approx(gaps(labels[own], said[own]), abs=1e-5)
        assert row["generalisation_ece"] == pytest.approx(
            gaps(np.concatenate(labels), np.concatenate(said)), abs=1e-5
        )
        assert row["generalisation"] == np.mean(np.concatenate(said).argmax(1) == np.concatenate(labels))


def test_calibration_is_measured_where_everyones_data_are_and_changes_nothing_else(fedavg, tmp_path):
    folder, _, rows = fedavg
    first = pd.read_parquet(folder / "metrics/00001.parquet")
    assert not [name for name in first if name.endswith("_ece")]
    _, plain = run(tmp_path / "plain", "fedavg", "evaluation.calibration=false")
    named = [f"{name}_ece" for name in ("personalisation", "generalisation", "global")]
    pd.testing.assert_frame_equal(rows.drop(columns=named), plain, check_exact=True)


def test_who_answers_with_the_shared_model_is_calibrated_as_that(fedavg, tmp_path):
    _, asked = run(tmp_path / "shared", "fedavg+shared")
    assert (asked["personalisation_ece"] == fedavg[2]["global_ece"]).all()
    assert asked["generalisation_ece"].nunique() == 1


def test_the_gate_is_judged_by_whose_each_sample_is(tmp_path):
    """All of it anew, from the state before the only round, that after it, and what clients trained."""
    scenario, rows = run(tmp_path / "gate", "fedavg+gate", "training.rounds=1", round_=1)
    plan, federation = build_plan(scenario, scenario.methods[0], 0), load_federation(scenario, 0)
    model, layout = plan.model, plan.layouts.parameters
    new = load_file(tmp_path / "gate/checkpoint.safetensors")["shared.theta"].numpy()
    names = [name for name in layout.names if "/" not in name]
    middle = {n: (layout.unflatten(plan.initial.theta)[n] + layout.unflatten(new)[n]) / 2 for n in names}
    everyone = layout.unflatten(new)["gate/"]
    clients = list(zip(federation.clients, federation.normalisation, strict=True))

    def says(parameters, x):
        model.load_state_dict({n: torch.tensor(np.asarray(v)) for n, v in parameters.items()}, strict=False)
        with torch.no_grad():
            output = model(torch.from_numpy(x))
        return softmax(output.logits.double().numpy(), 1), output.embedding.double().numpy()

    labels = np.concatenate([client.y_test for client, _ in clients])
    tests = np.concatenate([normalisation(client.x_test) for client, normalisation in clients])
    whose = np.repeat(range(len(clients)), [len(client.y_test) for client, _ in clients])
    for k, (client, normalisation) in enumerate(clients):
        trained = load_file(tmp_path / f"gate/personal/{client.name}.safetensors")
        half = {n: (middle[n] + trained[n].numpy()) / 2 for n in names}
        own = centres(says(middle, normalisation(client.x_train))[1], 64)

        def score(embedded, own=own):
            return np.log(cdist(embedded, own).min(1) / cdist(embedded, everyone).min(1))

        known = score(says(middle, normalisation(client.x_validation))[1])
        theirs, embedded = says(middle, tests)
        mine, weights = says(half, tests)[0], expit((np.quantile(known, 0.8) - score(embedded)) / known.std())
        answer = weights[:, None] * mine + (1 - weights[:, None]) * theirs
        is_own, row = whose == k, rows.loc[client.name]
        right = [(w > 0.5) == one for w, one in zip(weights, is_own, strict=True)]
        best = [m if one else t for m, t, one in zip(mine, theirs, is_own, strict=True)]
        assert row["generalisation"] == np.mean(answer.argmax(1) == labels)
        assert row["generalisation_ece"] == pytest.approx(gaps(labels, answer), abs=1e-5)
        assert row["personalisation_ece"] == pytest.approx(gaps(labels[is_own], answer[is_own]), abs=1e-5)
        assert row["gate_auc"] == pytest.approx(roc_auc_score(is_own, weights), abs=1e-6)
        assert row["gate_agreement"] == pytest.approx(np.mean(right))
        assert row["gate_own"] == pytest.approx(np.mean(np.array(right)[is_own]))
        assert row["generalisation_perfect"] == np.mean(np.argmax(best, 1) == labels)


def test_a_newcomer_answers_by_a_gate_that_few_labels_have_trained(tmp_path):
    """Trained in plain torch from the last state, on five samples; the gate is worked out anew."""
    more = ("evaluation.unseen_clients=1", "evaluation.unseen_samples=[5,0,1000]")
    scenario, _ = run(tmp_path / "gate", "fedavg+gate", *more)
    plan = build_plan(scenario, scenario.methods[0], 0)
    (who,), model, layout = plan.unseen, plan.model, plan.layouts.parameters
    client, normalisation = plan.federation.clients[who], plan.federation.normalisation[who]
    found = pd.read_parquet(tmp_path / "gate/unseen.parquet").iloc[0]
    assert found["client"] == client.name
    assert found["after_1000"] == found["after"]  # it has fewer
    last = load_file(tmp_path / "gate/checkpoint.safetensors")["shared.theta"].numpy()
    shared = {n: torch.tensor(v) for n, v in layout.unflatten(last).items() if "/" not in n}
    everyone = layout.unflatten(last)["gate/"]

    def says(parameters, x):
        model.load_state_dict(parameters, strict=False)
        with torch.no_grad():
            output = model(torch.from_numpy(normalisation(x)))
        return softmax(output.logits.double().numpy(), 1), output.embedding.double().numpy()

    theirs, embedded = says(shared, client.x_test)
    assert found["before"] == np.mean(theirs.argmax(1) == client.y_test)

    samples = Samples(client.x_train, client.y_train, normalisation)
    guessed = says(shared, client.x_train)[0].argmax(1)
    batch = scenario.training.batch_size
    assert len(guessed) > batch

    def halfway(x, y):
        model.load_state_dict(shared, strict=False)
        rng = np.random.default_rng(np.random.SeedSequence([0, 0, 2, who]))
        optimizer = torch.optim.Adam(model.parameters(), lr=scenario.training.learning_rate)
        order = rng.permutation(len(y))
        x, y = torch.from_numpy(normalisation(x[order])), torch.from_numpy(y[order])
        for some in range(0, len(y), batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                model(x[some : some + batch]).logits, y[some : some + batch]
            ).backward()
            optimizer.step()
        trained = {n: v.detach().clone() for n, v in model.named_parameters() if n in shared}
        assert set(trained) == set(shared)
        return {n: (shared[n] + trained[n]) / 2 for n in shared}

    own = centres(says(shared, client.x_train)[1], 64)

    def score(z):
        return np.log(cdist(z, own).min(1) / cdist(z, everyone).min(1))

    known = score(says(shared, client.x_validation)[1])
    weights = expit((np.quantile(known, 0.8) - score(embedded)) / known.std())[:, None]
    chosen = few(samples, 5, np.random.default_rng(stream(0, who)))
    for moment, known_to_it in (("after_5", (chosen.x, chosen.y)), ("after_0", (client.x_train, guessed))):
        answer = weights * says(halfway(*known_to_it), client.x_test)[0] + (1 - weights) * theirs
        assert found[moment] == pytest.approx(np.mean(answer.argmax(1) == client.y_test), abs=0.001)


@pytest.mark.slow
def test_newcomers_in_a_comparison(tmp_path):
    more = ["methods=fedavg,fedavg+shared,pooled,forest,forest-pooled", "evaluation.unseen_clients=2"]
    more += ["evaluation.unseen_samples=[20,5,0]", "evaluation.calibration=false"]
    results = simulate("digits", overrides=[*SMALL, *more], out=tmp_path / "run", workers=1)
    assert results.moments == ["before", "after_0", "after_5", "after_20", "after"]
    found = compare_runs([tmp_path / "run"])
    for moment in results.moments:
        means = results.unseen.groupby("method")[moment].mean()
        for method in found.methods:
            row = found.row(f"unseen {moment.replace('_', ' ')}", method)
            assert row["mean"] == pytest.approx(means[method], nan_ok=True)
    alike = results.unseen[results.unseen["method"] == "fedavg+shared"]
    assert (alike["before"] == alike["after_5"]).all()
    assert (alike["before"] == alike["after_0"]).all()
    forest = results.unseen[results.unseen["method"] == "forest"]
    assert forest["before"].isna().all()
    assert forest["after_0"].isna().all()
    federation = load_federation(results.scenario, 0)
    for row in forest.to_dict("records"):
        (who,) = [k for k, client in enumerate(federation.clients) if client.name == row["client"]]
        client, normalisation = federation.clients[who], federation.normalisation[who]
        samples = Samples(client.x_train, client.y_train, normalisation)
        chosen = few(samples, 20, np.random.default_rng(stream(0, who)))
        by_hand = RandomForestClassifier(200, random_state=0).fit(
            normalisation(chosen.x).reshape(20, -1), chosen.y
        )
        right = by_hand.score(normalisation(client.x_test).reshape(len(client.y_test), -1), client.y_test)
        assert row["after_20"] == pytest.approx(right, abs=1e-9)


def test_a_comparison_says_what_a_gate_loses(tmp_path):
    simulate("digits", overrides=[*SMALL, "methods=fedavg,fedavg+gate"], out=tmp_path / "run", workers=1)
    found = compare_runs([tmp_path / "run"])
    perfect, lost = (found.row(f"gate {name}", "fedavg+gate") for name in ("perfect", "lost"))
    assert lost["mean"] == pytest.approx(perfect["mean"] - found.row("generalisation", "fedavg+gate")["mean"])
    assert 0.5 < found.row("gate AUC", "fedavg+gate")["mean"] <= 1
    assert np.isnan(found.row("gate AUC", "fedavg")["mean"])
    for name in ("personalisation", "generalisation", "global"):
        assert 0 < found.row(f"{name} ECE", "fedavg")["mean"] < 1
