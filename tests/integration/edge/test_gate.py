"""The gate on a device, against the simulation that it stands for: rounds, a client's bundle, a server's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedali.answers import GATE, PROTOTYPES
from fedali.answers.gate import Gate, mixed, probabilities
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.cohort.contract import RoundSettings
from fedali.engines.outputs import Outputs
from fedali.errors import SettingsError
from fedali.methods import shared_indices
from fedali.models import ALPSettings
from fedali.slots import slot_slice
from fedali_client import EdgeClient
from fedali_client.state.answer import AnswerFile
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start
from fedali_simulations.federate.exporting import export
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_optimizer, build_setup
from fedali_simulations.study import simulate
from tests.marks import slow

SMALL = [
    *("partition.clients=3", "model.name=mlp", "model.options={hidden = [32]}", "training.rounds=2"),
    *("training.epochs=1", "training.engine=loop", "alp.num_prototypes=8", "seeds=1"),
    *("evaluation.transductive=false", "evaluation.generalisation_every=1"),
]


def scenario_of(method):
    return load_scenario("digits", [*SMALL, f"methods={method}"])


def bundle_of(scenario, setup, path):
    """Of the beginning of a simulation."""
    alp, start = scenario.alp_for(scenario.methods[0]), setup.initial
    given = setup.federation.normalisation[0]
    options = dataclasses.asdict(ALPSettings(**alp.model_dump())) if setup.method.uses_prototypes else None
    source = Source(
        name="digits",
        model=setup.model,
        component=Component(scenario.model.name, scenario.model.options, options),
        method=setup.method,
        optimizer=build_optimizer(scenario.training),
        start=Start(start.theta, start.prototypes, start.theta, start.prototypes),
        round=0,
        decay=alp.decay,
        normalisation=BundleNormalisation(scenario.split.normalise, given.mean, given.std),
        input_shape=setup.federation.input_shape,
        classes=setup.federation.class_names,
    )
    return export_bundle(path, source, batch=scenario.training.batch_size)


@pytest.mark.parametrize(
    "method", slow(["fedali", "fedali-paper+gate", "scaffold+gate"], lambda method: method != "fedali")
)
def test_rounds_on_devices_are_those_of_the_simulation(method, tmp_path, monkeypatch):
    scenario = scenario_of(method)
    setup = build_setup(scenario, scenario.methods[0], 5)
    (site,), path = setup.sites, tmp_path / "digits.fedali"
    bundle_of(scenario, setup, path)
    where, shared = shared_indices(setup.method, setup.layouts.parameters), setup.initial
    slot = slot_slice(setup.layouts.parameters, GATE.name)
    for round_ in (1, 2):
        influence, sent = setup.method.influence(round_), {}

        def received(client, trained, _, sent=sent):
            sent[client] = trained
            return trained

        monkeypatch.setattr(site, "received", received)
        reply = site.train(RoundSettings(round_, True, influence), shared)
        new = setup.method.aggregate(reply.upload, shared, setup.layouts)
        found = site.evaluate(RoundSettings(round_, True, influence), new).metrics
        for client, data in enumerate(setup.federation.clients):
            pair = data.x_train, data.y_train
            with EdgeClient.open(path, tmp_path / str(client), allow_unsigned=True) as device:
                device.receive(shared.theta[where], shared.prototypes, round_, influence, task=str(round_))
                device.fit_round(*pair, 1, [5, 0, round_, client])
                update = device.update()
                np.testing.assert_allclose(update.theta, sent[client].theta[where], rtol=0, atol=2e-4)
                assert np.abs(sent[client].theta[slot]).max() > 0.1
                assert device.unheard
            with EdgeClient.open(path, tmp_path / str(client), allow_unsigned=True) as device:
                new_model = new.theta[where], new.prototypes, influence
                device.hear(*new_model, data.x_train, data.x_validation)
                assert not device.unheard
                for name, x, y in (
                    ("personalisation", data.x_test, data.y_test),
                    ("validation", data.x_validation, data.y_validation),
                ):
                    answered = device.evaluate(x, y)
                    assert answered.accuracy == pytest.approx(found[name][client], abs=1.5 / len(x)), name
                weights = device.answer(data.x_test)[1]
                assert 0.3 < weights.mean() < 1
        shared = new


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    results = simulate(scenario_of("fedali,fedavg+gate"), out=folder / "run", workers=1)
    return folder / "run", results


def test_a_clients_bundle_answers_as_the_run_recorded(run, tmp_path):
    folder, results = run
    setup = build_setup(scenario_of("fedali"), scenario_of("fedali").methods[0], 0)
    data = setup.federation.clients[1]
    bundle = export(folder, tmp_path / "model.fedali", method="fedali", client=data.name)
    rows = results.clients[results.clients["method"] == "fedali"]
    row = rows[(rows["client"] == data.name) & (rows["round"] == bundle.manifest.round)]
    with EdgeClient.open(tmp_path / "model.fedali", tmp_path / "state", allow_unsigned=True) as device:
        for name, x, y in (
            ("personalisation", data.x_test, data.y_test),
            ("validation", data.x_validation, data.y_validation),
        ):
            assert device.evaluate(x, y).accuracy == pytest.approx(row[name].item(), abs=1.5 / len(x))
        others = np.concatenate([c.x_test for c in setup.federation.clients if c.name != data.name])
        assert device.answer(data.x_test)[1].mean() > device.answer(others)[1].mean() + 0.1


def test_a_servers_bundle_answers_with_the_shared_model_until_it_has_trained(run, tmp_path):
    folder, _ = run
    scenario = scenario_of("fedali")
    setup = build_setup(scenario, scenario.methods[0], 0)
    data, outputs = setup.federation.clients[2], Outputs(setup.model)
    bundle = export(folder, tmp_path / "model.fedali", method="fedali")
    state, size = bundle.state(), setup.model.parameter_layout.size
    none = np.zeros(0, np.float32)

    def said(theta, samples):
        return outputs(theta, none, [samples], 0.0)[0]

    train, test = setup.sites[0].cohort.train[2], setup.sites[0].cohort.test[2]
    theirs, seen = said(state["shared_theta"][:size], test)
    with EdgeClient.open(tmp_path / "model.fedali", tmp_path / "state", allow_unsigned=True) as device:
        shares, weights = device.answer(data.x_test)
        assert weights.max() < 1e-20
        np.testing.assert_allclose(shares, probabilities(theirs), atol=1e-5)
        device.fit(data.x_train, data.y_train, 2, validation=data.x_validation)
        shares, weights = device.answer(data.x_test)
        halfway = (device._state.theta()[:size] + state["shared_theta"][:size]) / 2
    everyone = state["shared_theta"][bundle.manifest.known :].reshape(PROTOTYPES, -1)
    validation = setup.sites[0].cohort.validation[2]
    gate = Gate.made(*(said(state["shared_theta"][:size], one)[1] for one in (train, validation)), everyone)
    np.testing.assert_allclose(weights, gate(seen), atol=1e-3)
    expected = mixed(gate(seen), probabilities(said(halfway, test)[0]), probabilities(theirs))
    np.testing.assert_allclose(shares, expected, atol=1e-3)


def test_a_fit_that_was_killed_before_its_answer_goes_on_with_that(run, tmp_path, monkeypatch):
    folder, _ = run
    data = build_setup(scenario_of("fedali"), scenario_of("fedali").methods[0], 0).federation.clients[2]
    export(folder, tmp_path / "model.fedali", method="fedali")

    def opened(name, **options):
        return EdgeClient.open(tmp_path / "model.fedali", tmp_path / name, allow_unsigned=True, **options)

    with opened("whole") as device:
        device.fit(data.x_train, data.y_train, 2)
        expected = device.answer(data.x_test)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, opened("state") as device:
        patched.setattr(AnswerFile, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            device.fit(data.x_train, data.y_train, 2)
    with opened("state") as device:
        reader = opened("state", read_only=True)
        assert reader.answer(data.x_test)[1].max() < 1e-20
        assert device.unheard
        report = device.fit(data.x_train, data.y_train, 2)
        assert (report.fit, report.resumed_at) == (1, report.steps)
        assert not device.unheard
        for found in (device.answer(data.x_test), reader.answer(data.x_test)):
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
        assert device.fit(data.x_train, data.y_train, 2).fit == 2


def test_the_head_alone_by_a_gate(run, tmp_path):
    """One body, two heads: embeddings that were kept for training are those that the gate looks at."""
    folder, _ = run
    scenario = scenario_of("fedali")
    data = build_setup(scenario, scenario.methods[0], 0).federation.clients[0]
    export(folder, tmp_path / "model.fedali", method="fedavg+gate", mode="head")
    with EdgeClient.open(tmp_path / "model.fedali", tmp_path / "state", allow_unsigned=True) as device:
        before = device._state.theta()
        device.fit(data.x_train, data.y_train, 3)
        kept = list(device._state.folder.glob("embeddings-*.npy"))
        assert len(kept) == 1
        answer = device._inference.answer
        moved = answer.theta != answer.shared_theta
        head = device.manifest.trained
        assert moved[head].any()
        assert not moved[: head.start].any()
        assert device.answer(data.x_test)[1].mean() > 0.3
        device.receive(before, np.zeros(0, np.float32), 3, 0.0)
        device.fit_round(data.x_train, data.y_train, 1, [1, 2])
        sent = device.update().theta[head.stop :].reshape(PROTOTYPES, -1)
        everyone = before[head.stop :].reshape(PROTOTYPES, -1)
        assert len(np.unique(sent, axis=0)) == PROTOTYPES
        assert np.abs(sent - everyone).max() > 0.01
        assert list(device._state.folder.glob("embeddings-*.npy")) == kept


def test_what_no_gate_can_be_is_one_line(run, tmp_path):
    folder, _ = run
    with pytest.raises(
        SettingsError, match=r"int8 is for bundles whose trained model answers, not for \+gate"
    ):
        export(folder, tmp_path / "model.fedali", method="fedavg+gate", mode="head", int8=True)
