"""Bundles of a run: what devices compute is what it recorded, and how its models are named."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali.errors import CheckpointError, SettingsError
from fedali_simulations.federate.exporting import choose, export
from fedali_simulations.study import simulate
from tests.integration.export.sources import CREATED, number, session

QUICK = [
    "methods=fedali-head,fedavg",
    "seeds=1",
    "partition.clients=4",
    "alp.num_prototypes=8",
    "model.options.channels=[4, 8]",
    "evaluation.generalisation_every=1",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    return folder, simulate("digits", overrides=QUICK, rounds=2, out=folder, workers=1)


def test_a_clients_bundle_predicts_as_the_run_recorded(tmp_path, run):
    folder, results = run
    bundle = export(folder, tmp_path / "model", method="fedali-head", client="client-2", created=CREATED)
    manifest, state = bundle.manifest, bundle.state()
    rows = results.clients
    row = rows[
        (rows["method"] == "fedali-head") & (rows["client"] == "client-2") & (rows["round"] == manifest.round)
    ]
    plan = _plan(folder, "fedali-head")
    (client,) = (c for c in plan.federation.clients if c.name == "client-2")
    x = (client.x_test.astype(np.float32) - manifest.normalisation.mean) / manifest.normalisation.std
    found = session(bundle, "infer")(
        theta=state["theta"],
        local_prototypes=state["local_prototypes"],
        x=x,
        influence=number(manifest.hyper.influence),
    )["logits"].argmax(1)
    right = (found == client.y_test).mean()
    assert abs(right - row["personalisation"].item()) < 1.5 / len(x)  # a near-tie may fall to the other side
    best = load_file(folder / "fedali-head/seed-0/best.safetensors")
    np.testing.assert_array_equal(state["theta"], best["client-2/theta"])
    np.testing.assert_array_equal(state["local_prototypes"], best["client-2/local_prototypes"])
    np.testing.assert_array_equal(state["shared_theta"], best["shared.theta"])
    assert manifest.name == "digits fedali-head, client-2"
    assert manifest.classes == tuple("0123456789")
    assert manifest.optimizer["learning_rate"] == 3e-3
    assert manifest.hyper.decay == 0.999


def _plan(folder, method):
    from fedali_simulations.setup import build_plan

    chosen = choose(folder, method)
    return build_plan(chosen.scenario, chosen.line, chosen.seed)


def test_every_way_to_name_a_model_finds_it(run):
    folder, _ = run
    seed = folder / "fedavg" / "seed-0"
    wanted = choose(folder, "fedavg")
    assert wanted.file == seed / "best.safetensors"
    for way in (folder / "fedavg", seed, seed / "best.safetensors"):
        found = choose(way)
        assert (found.line.title, found.seed, found.file.name) == ("fedavg", 0, "best.safetensors")
    assert choose(seed / "checkpoint.safetensors").file == seed / "checkpoint.safetensors"


def test_models_that_are_not_there(tmp_path, run):
    folder, _ = run
    for error, words, way, options in (
        (SettingsError, "several: --method fedali-head, fedavg", folder, {}),
        (SettingsError, "no line 'fedavf'; did you mean 'fedavg'", folder, {"method": "fedavf"}),
        (SettingsError, "no seed 7; known: 0", folder, {"method": "fedavg", "seed": 7}),
        (SettingsError, "folder of 'fedavg', not of", folder / "fedavg", {"method": "fedali-head"}),
        (SettingsError, "folder of seed 0, not of 1", folder / "fedavg/seed-0", {"seed": 1}),
        (SettingsError, "--client NAME", folder / "fedavg/seed-0/personal/client-1.safetensors", {}),
        (CheckpointError, "no line 'nobody'", folder / "nobody", {}),
        (CheckpointError, "no seed of the folder 'seed-x'", folder / "fedavg/seed-x", {}),
        (CheckpointError, "holds no run", tmp_path, {}),
    ):
        with pytest.raises(error, match=words):
            choose(way, **options)
    with pytest.raises(SettingsError, match=r"no client 'client-9'; (did you mean|known)"):
        export(folder / "fedavg", tmp_path / "model", client="client-9")
    last = folder / "fedavg/seed-0/checkpoint.safetensors"
    with pytest.raises(SettingsError, match="no personal models of its round"):
        export(last, tmp_path / "model", client="client-1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["client", "none"])
def test_normalisation_is_told(tmp_path, kind):
    folder = tmp_path / "run"
    overrides = [*QUICK, "methods=fedavg", "model.name=mlp", "model.options={}", f"split.normalise={kind}"]
    simulate("digits", overrides=overrides, rounds=1, out=folder, workers=1)
    plan = _plan(folder, None)
    whole = export(folder, tmp_path / "whole", batch=4).manifest.normalisation
    own = export(folder, tmp_path / "own", batch=4, client="client-1").manifest.normalisation
    assert (whole.kind, own.kind) == (kind, kind)
    names = [client.name for client in plan.federation.clients]
    np.testing.assert_allclose(own.mean, plan.federation.normalisation[names.index("client-1")].mean)
    if kind == "client":
        samples = np.concatenate([plan.federation.clients[k].x_train for k in plan.seen]).astype(np.float64)
        np.testing.assert_allclose(whole.mean.ravel(), samples.mean(), rtol=1e-5)
        np.testing.assert_allclose(whole.std.ravel(), samples.std(), rtol=1e-5)
        assert not np.allclose(own.mean, whole.mean, rtol=1e-4)
    else:
        assert (whole.mean == 0).all()
        assert (whole.std == 1).all()
