"""What versions before 0.3.0 stored means what it meant; what a user writes means what names mean now."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedali.errors import SettingsError
from fedali.wire.kit import OperatorKit
from fedali_simulations import load_scenario
from fedali_simulations.federate.running import prepare_scenario
from fedali_simulations.federate.up import scenario_for
from fedali_simulations.jobs import identity
from fedali_simulations.names_before import as_called_now
from fedali_simulations.study import check_settings, scenario_of
from fedali_simulations.template import to_toml
from fedali_simulations.tuning import tuning
from fedali_simulations.tuning.search import Search

HERE = Path("kits/operator")
KIT = OperatorKit(HERE, "wards", "server:9093", *[HERE] * 5, ("a",), (), (), HERE)
DATA = '[data]\nsource = "digits"\n'
BEFORE = (
    """methods = ["fedali", {name = "fedali", label = "slow", options = {strength = 0.1}}, "fedali+gate", "fedali-head", "fedavg"]
seeds = 2
"""
    + DATA
)
HASHES = {
    "fedali": "e752d1393144847e",
    "slow": "2e78d29437be75ff",
    "fedali+gate": "d3cae58431312f7f",
    "fedali-head": "9dd1b04489ee2630",
}
SMALL = [
    *(
        "partition.clients=5",
        "training.epochs=1",
        "evaluation.generalisation_every=1",
        "alp.num_prototypes=8",
    ),
    *("model.options.channels=[4, 8]", "training.engine=loop"),
]


def names(scenario):
    return {line.title: line.name for line in scenario.methods}


MEANT = {
    "fedali": "fedali-paper",
    "slow": "fedali-paper",
    "fedali+gate": "fedali-paper+gate",
    "fedali-head": "fedali-head",
    "fedavg": "fedavg",
}


def test_a_run_of_before_trains_the_papers_method_under_its_old_labels(tmp_path):
    (tmp_path / "scenario.toml").write_text(BEFORE)
    stored = scenario_of(tmp_path)
    assert names(stored) == MEANT
    assert stored.methods[1].options == {"strength": 0.1}
    (tmp_path / "scenario.toml").write_text(to_toml(stored))  # as a run of now is stored
    assert scenario_of(tmp_path) == stored


def test_its_jobs_have_the_hashes_that_0_2_0_gave_them():
    settings = load_scenario("digits", SMALL).model_dump(mode="json")
    lines = ["fedali", {"name": "fedali", "label": "slow", "options": {"strength": 0.1}}]
    before = as_called_now({**settings, "methods": [*lines, "fedali+gate", "fedali-head"]})
    scenario = load_scenario(before)
    found = {line.title: identity(scenario, line, 0)["settings"] for line in scenario.methods}
    assert found == HASHES


def test_the_new_method_has_hashes_of_its_own():
    scenario = load_scenario(
        "digits", [*SMALL, "methods=fedali,fedali+gate,fedali+trained,fedali-paper,fedali-paper+gate"]
    )
    found = [identity(scenario, line, 0)["settings"] for line in scenario.methods]
    assert found[3:] == [HASHES["fedali"], HASHES["fedali+gate"]]  # under titles of their own
    assert len(set(found)) == 5


def test_a_scenario_of_a_users_own_means_the_new_one(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text('methods = ["fedali", "fedali+trained"]\n' + DATA)
    found = load_scenario(path)
    assert names(found) == {"fedali": "fedali", "fedali+trained": "fedali+trained"}
    path.write_text(BEFORE)
    with pytest.raises(
        SettingsError, match="'strength'; it is one of 'fedali-paper', which 'fedali' meant before"
    ):
        load_scenario(path)
    path.write_text(to_toml(found))
    assert load_scenario(path, stored=True) == found


@pytest.mark.parametrize("beside", ["environment.json", "federation.json"])
def test_a_runs_own_file_that_is_given_as_a_scenario_means_what_the_run_did(tmp_path, beside):
    (tmp_path / "scenario.toml").write_text(BEFORE)
    (tmp_path / beside).write_text("{}")
    assert names(load_scenario(tmp_path / "scenario.toml")) == MEANT


def test_settings_of_a_run_of_before_are_compared_as_they_were_meant(tmp_path):
    (tmp_path / "scenario.toml").write_text(BEFORE)
    check_settings(tmp_path, None, ["seeds=2"])
    with pytest.raises(SettingsError, match="was started with seeds = 2, not 3"):
        check_settings(tmp_path, None, ["seeds=3"])


def test_a_search_of_before_and_what_it_found(tmp_path):
    text = 'methods = [{name = "fedali", options = {strength = 0.3}}]\n' + DATA
    (tmp_path / "tuned.toml").write_text(text)
    Search(4, (1000,), "both", {}, "4.0.0").write(tmp_path / "search.json")
    asked, _ = tuning.read(tmp_path)
    assert names(asked) == {"fedali": "fedali-paper"}
    found = tmp_path / "elsewhere.toml"
    found.write_text(
        "# Settings of fedali, found by fedali tune (FedAli 0.2.0, Optuna 4.0.0) in 4 trials.\n" + text
    )
    assert names(load_scenario(found)) == {"fedali": "fedali-paper"}
    tuned = tuning.Tuned(
        tmp_path, asked, Search(1, (1000,), "both", {}, "4"), (tuning.Trial(0, {}, 0.5),), asked
    )
    found.write_text(tuning.found_toml(tuned))
    assert load_scenario(found) == asked


def test_devices_train_what_a_scenario_names_first_unless_they_are_told(tmp_path):
    nameless = tmp_path / "own.toml"
    nameless.write_text(DATA + '[partition]\nkind = "dirichlet"\n')
    for source in ("digits", nameless):
        assert names(scenario_for(str(source), [], 6)) == {"fedali": "fedali"}
    assert set(names(scenario_for("digits", ["methods=fedavg,fedali+trained"], 6))) == {
        "fedavg",
        "fedali+trained",
    }
    asked = load_scenario("digits", ["methods=fedali+between"])
    with pytest.raises(SettingsError, match=r"^fedali\+between: \+between is for simulations"):
        prepare_scenario(asked, tmp_path / "run", {}, KIT)
    assert not (tmp_path / "run").exists()
