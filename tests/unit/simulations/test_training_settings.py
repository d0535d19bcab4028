"""Settings of local training: schedules, decay, clipping, patience."""

from __future__ import annotations

import pytest

from fedali.errors import SettingsError
from fedali.optimizers.rules import SGD, Adam
from fedali.optimizers.schedules import CONSTANT, RateSchedule
from fedali_simulations import load_scenario
from fedali_simulations.comparing.same import differences, trains_otherwise
from fedali_simulations.jobs import identity
from fedali_simulations.setup import build_optimizer
from fedali_simulations.template import to_toml

ALL = (
    *("training.schedule=cosine", "training.warmup_rounds=2", "training.schedule_floor=0.05"),
    *("training.weight_decay=0.01", "training.clip_norm=1.0", "training.patience=3", "training.rounds=12"),
)


def test_settings_become_an_optimizer_and_a_schedule(tmp_path):
    plain, found = load_scenario("digits", ["training.rounds=12"]), load_scenario("digits", ALL)
    assert plain.training.rates == CONSTANT
    assert build_optimizer(plain.training) == Adam(3e-3)
    assert found.training.rates == RateSchedule("cosine", 2, 12, 0.05)
    assert build_optimizer(found.training) == Adam(3e-3, weight_decay=0.01, clip_norm=1.0)
    sgd = load_scenario("digits", [*ALL, "training.optimizer=sgd"])
    assert build_optimizer(sgd.training) == SGD(3e-3, 0.9, 0.01, 1.0)
    (tmp_path / "all.toml").write_text(to_toml(found))
    assert load_scenario(tmp_path / "all.toml") == found


def test_a_line_has_its_own_and_is_compared_with_others():
    line = {
        "name": "fedavg",
        "training": {"schedule": "step", "step_rounds": 4, "clip_norm": 0.5, "patience": 2},
    }
    scenario = load_scenario({"data": {"source": "digits"}, "methods": [line, "fedper"]})
    own, other = map(scenario.training_for, scenario.methods)
    assert (own.rates, own.clip_norm, own.patience) == (RateSchedule("step", every=4), 0.5, 2)
    assert (other.rates, other.clip_norm, other.patience) == (CONSTANT, 0.0, 0)
    assert trains_otherwise(scenario, scenario.methods[0], scenario) == line["training"]
    plain = load_scenario("digits", ["training.rounds=12"])
    assert not list(differences(load_scenario("digits", ALL), plain))  # a method's own, as its learning rate


def _hash(*overrides, methods=("fedavg",)):
    scenario = load_scenario({**load_scenario("digits", overrides).model_dump(), "methods": list(methods)})
    return identity(scenario, scenario.methods[0], 0)


def test_a_run_is_another_where_numbers_change_and_only_there():
    plain = _hash()
    assert _hash("training.patience=3") == _hash("training.step_rounds=10") == plain
    assert _hash(methods=[{"name": "fedavg", "training": {"patience": 3}}]) == plain
    assert _hash("training.schedule_rounds=7") == plain  # which nothing reads
    changes = ("schedule=cosine", "schedule=step", "warmup_rounds=1", "weight_decay=0.1", "clip_norm=1.0")
    found = [_hash(f"training.{change}")["settings"] for change in changes]
    assert len({*found, plain["settings"]}) == len(changes) + 1
    cosine = [
        _hash("training.schedule=cosine", *more)
        for more in (
            ["training.rounds=12"],
            ["training.rounds=6", "training.schedule_rounds=12"],
            ["training.rounds=6"],
        )
    ]
    assert cosine[0] == cosine[1] != cosine[2]  # over as many rounds, however many are done
    own = [
        _hash(f"training.rounds={rounds}", methods=[{"name": "fedavg", "training": {"schedule": "cosine"}}])
        for rounds in (6, 12)
    ]
    assert own[0] != own[1]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["schedule=cosin"],
            "training.schedule: input should be 'constant', 'cosine' or 'step', not 'cosin'",
        ),
        (["weight_decay=-1"], "training.weight_decay: input should be greater than or equal to 0, not -1"),
        (["clip_norm=inf"], "training.clip_norm: input should be less than inf"),
        (["patience=-1"], "training.patience: input should be greater than or equal to 0"),
        (["warmup=3"], "unknown setting 'training.warmup'; did you mean 'warmup_rounds'"),
        (["schedule=cosine", "warmup_rounds=12", "rounds=12"], "none left after a warm-up of 12"),
        (
            ["schedule=cosine", "schedule_rounds=5", "rounds=12"],
            "ends after 5 rounds, and there are 12: those beyond would train nothing. Set training.schedule_floor",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(overrides, line):
    with pytest.raises(SettingsError) as caught:
        load_scenario("digits", [f"training.{change}" for change in overrides])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patience_wants_validation_data():
    shares = ["split.train=0.7", "split.validation=0.0", "training.patience=2"]
    with pytest.raises(
        SettingsError, match=r"training\.patience looks at validation data, and there are none"
    ):
        load_scenario("digits", shares)
