"""A round on a device is a client's round in a simulation: same data, same start, same order of samples, same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.cohort.contract import RoundSettings
from fedali.engines.base import Query
from fedali.methods import SharedState, shared_indices
from fedali.models import ALPSettings
from fedali.slots import slot_slice
from fedali_client import EdgeClient
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_optimizer, build_setup
from tests.marks import slow

# Two channels or more to a group of GroupNorm: with one, the gradient of the bias before it is nothing but rounding,
# which Adam makes steps of.
MODELS = {
    "mlp": ["model.name=mlp", "model.options={hidden = [32]}"],
    "cnn2d": ["model.options.channels=[16, 32]"],
}
METHODS = ("fedavg", "fedali-paper", "fedper", "fedali-head")
STARTING = ("fedrod", "fedala")  # which do something as training starts, or a phase of it
ANSWERING = ("pfedme", "feddbe")  # with a second model, with one that is made of what was trained
SGD = ("training.optimizer=sgd", "training.momentum=0.0", "training.learning_rate=0.05")  # the paper's own
CLIENT = 1


def scenario_of(model, method):
    return load_scenario(
        "digits",
        [
            *("partition.clients=3", "alp.num_prototypes=16", "training.epochs=2", "training.engine=loop"),
            *(f"methods={method}", "seeds=1", "evaluation.transductive=false", *MODELS[model]),
            *(SGD if method == "pfedme" else ()),
        ],
    )


@pytest.fixture(
    scope="module",
    params=slow(
        [
            *((model, method) for model in MODELS for method in METHODS[: 3 if model == "mlp" else 4]),
            *(("mlp", method) for method in STARTING + ANSWERING),
        ],
        lambda case: case[0] == "cnn2d" and case[1] != "fedali-paper",
    ),
    ids="-".join,
)
def both(request, tmp_path_factory):
    """A setup of a simulation, and the bundle of its beginning."""
    scenario = scenario_of(*request.param)
    setup = build_setup(scenario, scenario.methods[0], 5)
    alp, model = scenario.alp_for(scenario.methods[0]), scenario.model
    kind, given = scenario.split.normalise, setup.federation.normalisation[CLIENT]
    start = setup.initial
    source = Source(
        name="digits",
        model=setup.model,
        component=Component(
            model.name,
            model.options,
            dataclasses.asdict(ALPSettings(**alp.model_dump())) if setup.method.uses_prototypes else None,
        ),
        method=setup.method,
        optimizer=build_optimizer(scenario.training),
        start=Start(start.theta, start.prototypes, start.theta, start.prototypes),
        round=0,
        decay=alp.decay,
        normalisation=BundleNormalisation(kind, given.mean, given.std),
        input_shape=setup.federation.input_shape,
        classes=setup.federation.class_names,
    )
    path = tmp_path_factory.mktemp("bundle") / "digits.fedali"
    export_bundle(path, source, batch=scenario.training.batch_size)
    return scenario, setup, path


def test_rounds_on_a_device_are_those_of_the_simulation(both, tmp_path):
    """Two rounds: the second starts from a personal part that was trained, and from moments that are fresh."""
    scenario, setup, path = both
    (site,) = setup.sites
    data, where = setup.federation.clients[CLIENT], shared_indices(setup.method, setup.layouts.parameters)
    shared = setup.initial
    with EdgeClient.open(path, tmp_path, allow_unsigned=True) as device:
        for round_ in (1, 2):
            (expected,) = site._train([CLIENT], round_, shared)
            influence = setup.method.influence(round_)
            device.receive(shared.theta[where], shared.prototypes, round_, influence, task=str(round_))
            epochs = scenario.training.epochs + setup.method.extra_epochs
            report = device.fit_round(data.x_train, data.y_train, epochs, [5, 0, round_, CLIENT])
            found = device._state.theta()
            moved = np.linalg.norm(expected.theta - shared.theta)
            assert moved > 0.1
            np.testing.assert_allclose(found, expected.theta, rtol=0, atol=1e-4)
            np.testing.assert_allclose(
                device._state.local_prototypes, expected.local_prototypes, rtol=0, atol=1e-4
            )
            assert report.loss == pytest.approx(expected.loss, abs=1e-4)
            assert report.accuracy == pytest.approx(expected.accuracy, abs=0.01)
            answers = expected.theta[slot_slice(setup.layouts.parameters, setup.method.answer_slot)]
            own = site.engine.predict(
                [Query(answers, expected.local_prototypes, (site.cohort.test[CLIENT],), influence)]
            )
            assert device.evaluate(data.x_test, data.y_test).accuracy == pytest.approx(
                np.mean(next(iter(own))[0] == data.y_test), abs=0.01
            )
            update = device.update()
            np.testing.assert_allclose(update.theta, expected.theta[where], rtol=0, atol=1e-4)
            assert update.samples == len(data.y_train)
            site.store.remember(CLIENT, expected.theta, expected.local_prototypes)
            # What a server would have next; any state will do, as long as both start from the same.
            theta = shared.theta.copy()
            theta[where] = update.theta
            shared = SharedState(theta, update.prototypes)


def test_the_servers_model_is_judged_without_touching_the_personal_one(both, tmp_path):
    _, setup, path = both
    (site,) = setup.sites
    where = shared_indices(setup.method, setup.layouts.parameters)
    data = setup.federation.clients[CLIENT]
    rng = np.random.default_rng(0)
    shared = SharedState(
        setup.initial.theta
        + np.float32(0.05) * rng.standard_normal(setup.initial.theta.size).astype(np.float32),
        setup.initial.prototypes,
    )
    shared.theta[np.setdiff1d(np.arange(len(shared.theta)), where)] = setup.initial.theta[
        np.setdiff1d(np.arange(len(shared.theta)), where)
    ]
    expected = site.evaluate(RoundSettings(3), shared).metrics
    with EdgeClient.open(path, tmp_path, allow_unsigned=True) as device:
        device.fit(data.x_train, data.y_train, 1 + setup.method.extra_epochs)
        before = device._state.theta(), device._state.local_prototypes.copy(), device.status()
        found = device.evaluate_shared(
            shared.theta[where], shared.prototypes, setup.method.influence(3), data.x_test, data.y_test
        )
        assert (device._state.theta() == before[0]).all()
        assert (device._state.local_prototypes == before[1]).all()
        assert device.status() == before[2]
    row = expected["client"].index(CLIENT)
    assert found.samples == expected["test_samples"][row]
    assert found.accuracy == pytest.approx(expected["global"][row], abs=1.5 / found.samples)
    assert found.macro_f1 == pytest.approx(expected["global_f1"][row], abs=0.02)


def test_a_round_is_trained_once_and_goes_on_after_it_was_stopped(both, tmp_path):
    _, setup, path = both
    where = shared_indices(setup.method, setup.layouts.parameters)
    data, start = setup.federation.clients[CLIENT], setup.initial
    words = (data.x_train, data.y_train, 2, [5, 0, 1, CLIENT])
    given = (start.theta[where], start.prototypes, 1, setup.method.influence(1))

    class StoppedError(Exception):
        pass

    def stop(now):
        if now.step == now.total // 2 + 1:
            raise StoppedError

    with EdgeClient.open(path, tmp_path / "whole", allow_unsigned=True) as whole:
        whole.receive(*given, task="a")
        whole.fit_round(*words)
        expected = whole.update()
    with EdgeClient.open(path, tmp_path / "s", allow_unsigned=True) as device:
        device.receive(*given, task="a")
        with pytest.raises(StoppedError):
            device.fit_round(*words, progress=stop)
    with EdgeClient.open(path, tmp_path / "s", allow_unsigned=True) as device:
        report = device.fit_round(*words)
        assert 0 < report.resumed_at < report.steps
        assert (device.update().theta == expected.theta).all()
        again = device.fit_round(*words)
        assert (again.steps, again.resumed_at, again.loss) == (report.steps, report.steps, report.loss)
        assert (device.update().theta == expected.theta).all()
        assert (device.update().prototypes == expected.prototypes).all()
