"""What the evaluation of whole simulations says of clients besides accuracy, worked out anew from the models that they leave."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fedali_simulations import load_scenario
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


def run(folder, method, *overrides):
    scenario = load_scenario("digits", [*SMALL, f"methods={method}", *overrides])
    run_job(Job(scenario, scenario.methods[0], 0, folder, 1))
    return scenario, pd.read_parquet(folder / "metrics/00002.parquet").set_index("client")


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
