"""A federation over TLS, with real processes: what comes out is what the simulation of the same federation finds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.federations import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Place(tmp_path_factory.mktemp("federation")) as running:
        yield running


def test_three_rounds_over_two_sites_and_six_devices_equal_the_simulation(place):
    found, states = place.run_here("run")
    simulated, expected_states = place.simulate("simulated")
    for facts in place.rounds("run"):
        assert [report["state"] for report in facts["reports"]] == ["done"] * 12  # six trained, six evaluated
    for one, other in zip(states[1], expected_states[1], strict=True):
        assert np.abs(one - other).max() < 1e-4
    expected = {line["measure"]: line for line in simulated.to_dict()["table"]}
    for line in found.to_dict()["table"]:
        if line["measure"] == "generalisation":
            assert line["accuracy"] is None  # devices have no data of others
            continue
        assert line["accuracy"] == pytest.approx(expected[line["measure"]]["accuracy"], abs=0.01)
        assert line["last_round"] == pytest.approx(expected[line["measure"]]["last_round"], abs=0.01)
