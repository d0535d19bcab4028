"""Answers by the gate in a federation: devices at one site, data at the other, equal to their simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.federations import Place

CHANGES = (
    *("methods=fedali", "training.rounds=2", "model.name=mlp", "model.options={hidden = [32]}"),
    *("training.optimizer=sgd", "training.learning_rate=0.05"),
)


@pytest.mark.slow
def test_devices_and_a_site_with_data_answer_as_their_simulation(tmp_path):
    with Place(tmp_path, devices=4, changes=CHANGES) as place:
        place.site_b_holds_data()
        found, states = place.run_here("run")
        simulated, expected = place.simulate("simulated")
        for round_, (theta, _) in states.items():
            assert np.abs(theta - expected[round_][0]).max() < 2e-3
        everybody = found.results.clients.set_index(["round", "client"])
        for _, row in simulated.clients.iterrows():
            number = place_of(place, row["client"])
            own = everybody.loc[row["round"], number]
            for name in ("personalisation", "validation", "global", "personalisation_f1"):
                assert own[name] == pytest.approx(row[name], abs=0.03), (name, number, row["round"])
        for measure in ("personalisation", "global"):
            one, other = (
                next(line for line in results.to_dict()["table"] if line["measure"] == measure)
                for results in (found, simulated)
            )
            assert one["last_round"] == pytest.approx(other["last_round"], abs=0.01)
        reports = [report for facts in place.rounds("run") for report in facts["reports"]]
        assert {report["state"] for report in reports} == {"done"}
        asked = {report["kind"]: set(report["metrics"]) for report in reports}
        assert asked["train"] == {"train_loss", "train_accuracy"}
        assert {"global", "personalisation", "validation"} <= asked["evaluate"]


def place_of(place, client):
    names = [one.name for one in place.local._federation.clients]
    return float(names.index(client))
