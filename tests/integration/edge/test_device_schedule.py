"""A device trains with its round's learning rate, with decay and clipping, as the simulation does."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.methods import shared_indices
from fedali.optimizers.schedules import RateSchedule
from fedali_client import EdgeClient
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.bundle_source import optimizer_of, source_of
from fedali_simulations.federate.exporting import untrained_source
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_optimizer, build_plan, build_setup
from tests.marks import slow

CLIENT = 1
SETTINGS = (
    *("partition.clients=3", "training.rounds=4", "training.epochs=2", "training.engine=loop", "seeds=1"),
    *("model.name=mlp", "model.options={hidden=[16]}", "evaluation.transductive=false"),
    *("training.schedule=cosine", "training.weight_decay=0.5", "training.clip_norm=0.3"),
)


@pytest.mark.parametrize("method", slow(["fedavg", "fedrep", "scaffold"], lambda method: method != "fedavg"))
def test_rounds_on_a_device_are_those_of_the_simulation(method, tmp_path):
    scenario = load_scenario("digits", [*SETTINGS, f"methods={method}"])
    line = scenario.methods[0]
    setup, bundle = build_setup(scenario, line, 5), tmp_path / "untrained.fedali"
    source = untrained_source(scenario, line, build_plan(scenario, line, 5))
    export_bundle(bundle, source, batch=scenario.training.batch_size)
    (site,), data, shared = setup.sites, setup.federation.clients[CLIENT], setup.initial
    where = shared_indices(setup.method, setup.layouts.parameters)
    epochs = scenario.training.epochs + setup.method.extra_epochs
    size = setup.model.theta().numel()  # what follows are slots: variates of scaffold grow as the rate falls
    with EdgeClient.open(bundle, tmp_path / "device", allow_unsigned=True) as device:
        given = device.bundle
        assert given.manifest.schedule == RateSchedule("cosine", rounds=4)
        assert optimizer_of(given) == build_optimizer(scenario.training)
        assert source_of(given, shared, 4).schedule == given.manifest.schedule
        moves = []
        for round_ in (1, 4):
            (expected,) = site._train([CLIENT], round_, shared)
            device.receive(shared.theta[where], shared.prototypes, round_, 0.0, task=str(round_))
            device.fit_round(data.x_train, data.y_train, epochs, [5, 0, round_, CLIENT])
            np.testing.assert_allclose(device._state.theta(), expected.theta, rtol=0, atol=1e-4)
            moves.append(np.linalg.norm((expected.theta - shared.theta)[:size]))
            site.store.remember(CLIENT, expected.theta, expected.local_prototypes)
        assert moves[0] > 0.1
        assert moves[1] < 0.5 * moves[0]  # at an eighth of the rate
