from __future__ import annotations

import pytest

from fedali.errors import SettingsError
from fedali_simulations import builtin_scenarios, load_scenario
from fedali_simulations.federate.up import scenario_for
from fedali_simulations.jobs import identity
from fedali_simulations.scenario import MethodSettings
from fedali_simulations.template import to_toml


def test_built_in_scenarios_load_and_say_what_they_are():
    found = builtin_scenarios()
    assert {"digits", "motionsense", "reference"} <= set(found)
    assert all(description for description in found.values())


def test_settings_over_settings():
    overrides = [
        "training.epochs=5",
        "methods=fedali-paper,fedavg",
        "alp.num_prototypes=[8]",
        "model.options.channels=[4, 8]",
        "evaluation.transductive=false",
        "data.source=my data.csv",
        "seeds = 3",
    ]
    scenario = load_scenario("digits", overrides)
    assert scenario.training.epochs == 5
    assert [method.name for method in scenario.methods] == ["fedali-paper", "fedavg"]
    assert scenario.alp.num_prototypes == (8,)
    assert scenario.model.options["channels"] == [4, 8]
    assert not scenario.evaluation.transductive
    assert scenario.data.source == "my data.csv"
    assert scenario.seeds == 3


def test_a_resolved_scenario_read_back_is_the_same(tmp_path):
    methods = [
        {"name": "fedali-paper", "label": "slow", "options": {"strength": 0.1}, "alp": {"decay": 0.9}},
        "fedavg",
    ]
    columns = {"client": "user", "channels": ["x", "y"]}
    scenario = load_scenario(
        {"data": {"source": "digits", "columns": columns, "unlabelled": [-1, "", "?"]}, "methods": methods}
    )
    assert scenario.alp_for(scenario.methods[0]).decay == 0.9
    assert scenario.alp_for(scenario.methods[1]).decay == 0.999
    assert load_scenario("digits", ["data.unlabelled=-1"]).data.unlabelled == (-1,)
    path = tmp_path / "resolved.toml"
    path.write_text(to_toml(scenario))
    assert load_scenario(path) == scenario


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=5", "scenario digits: unknown setting 'training.epoch'; did you mean 'epochs'?"),
        ("trainning.epochs=5", "scenario digits: unknown setting 'trainning'; did you mean 'training'?"),
        ("methods=fedalli", "scenario digits: methods.0: unknown method 'fedalli'; did you mean 'fedali'?"),
        ("model.name=cnn3d", "model: unknown model 'cnn3d'; did you mean"),
        ("training.epochs=many", "training.epochs: input should be a valid integer"),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, not 0"),
        ("training.learning_rate=-1", "training.learning_rate: input should be greater than 0, not -1"),
        ("split.train=0.9", "split: train, validation and test add up to 1.4, not 1"),
        ("training.optimizer=adma", "training.optimizer: input should be 'adam' or 'sgd', not 'adma'"),
        ("seeds.more=1", "--set seeds.more=1: 'seeds' holds a value, not settings"),
        ("epochs", "--set takes key=value, not 'epochs'"),
        ("methods=fedali,fedali", "two methods are called 'fedali'; give one a label"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(override, message):
    with pytest.raises(SettingsError) as caught:
        load_scenario("digits", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_alp_setting_of_one_line_is_named():
    methods = [{"name": "fedali-paper", "alp": {"decya": 0.5}}]
    with pytest.raises(
        SettingsError, match=r"methods\.fedali-paper\.alp\.decya: unknown setting; did you mean 'decay'"
    ):
        load_scenario({"data": {"source": "digits"}, "methods": methods})


def test_a_scenario_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="no scenario called 'digts'; did you mean 'digits'"):
        load_scenario("digts")
    with pytest.raises(SettingsError, match=r"cannot read scenario .*none\.toml: No such file"):
        load_scenario(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(SettingsError, match=r"broken\.toml: not valid TOML"):
        load_scenario(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        load_scenario(broken)


def test_a_run_is_the_same_run_until_a_setting_of_its_data_is_set():
    plain = load_scenario("digits")
    found = [
        identity(load_scenario("digits", [f"data.{change}"]), plain.methods[0], 0)
        for change in (
            *("gap=10.0", "clients=people", "gap=5.0", "missing=[]", "columns={}", "devices=[]"),
            "clients=devices",
        )
    ]
    same = identity(plain, plain.methods[0], 0)
    assert found[0] == found[1] == same
    plainer = load_scenario("digits", ["evaluation.calibration=false"])
    assert identity(plainer, plainer.methods[0], 0) == same
    with pytest.raises(SettingsError, match="unseen_samples are of clients held out, and there is none"):
        load_scenario("digits", ["evaluation.unseen_samples=[5]"])
    layouts = {
        name: identity(load_scenario("digits", [f"data.layout={name}"]), plain.methods[0], 0)
        for name in ("chw", "tc", "hwc")
    }
    assert layouts["chw"] == layouts["tc"] == same != layouts["hwc"]
    assert len({one["settings"] for one in found}) == 6


@pytest.mark.parametrize(
    ("scenario", "settings"), [("digits", "6d42962c613f4886"), ("motionsense", "641961b309f2f0fe")]
)
def test_runs_of_0_1_0_are_resumed(scenario, settings):
    """What its checkpoints have to agree on: a new setting that is not set is no part of it."""
    found = load_scenario(scenario, ["training.engine=loop"])
    was = {"method": "fedali", "seed": "0", "settings": settings}  # which is the paper's now
    assert identity(found, MethodSettings(name="fedali-paper", label="fedali"), 0) == was
    assert identity(found, MethodSettings(name="fedali"), 0) != was


@pytest.mark.parametrize(
    ("source", "subjects"),
    [("motionsense", (1, 2, 3)), ("hhar", ("a", "b", "c")), ("pamap2:/data/pamap2.zip", (101, 102, 103))],
)
def test_as_many_people_as_devices(source, subjects):
    known = scenario_for("motionsense", [f"data.source={source}"], 3)
    assert known.data.subjects == subjects
    assert (
        scenario_for("motionsense", [f"data.source={source}", "data.clients=devices"], 3).data.subjects
        is None
    )


@pytest.mark.parametrize(
    ("change", "found"), [("subjects=7", (7,)), ("subjects=a,b", ("a", "b")), ("subjects=[3, 'c']", (3, "c"))]
)
def test_people_are_numbers_or_letters_one_or_several(change, found):
    known = load_scenario("motionsense", [f"data.{change}", "data.devices=watch"])
    assert known.data.subjects == found
    assert known.data.devices == ("watch",)
