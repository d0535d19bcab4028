from __future__ import annotations

import pytest

from fedali.errors import SettingsError
from fedali.methods import METHODS, PRESETS, build_method
from fedali_simulations import load_scenario
from fedali_simulations.comparing.asked import one_line
from fedali_simulations.tuning.space import RATE, Range, space_of, with_range


def space(name, *given, changes=()):
    scenario = one_line(load_scenario("digits", changes), name)
    return space_of(scenario, scenario.methods[0], given)


def test_a_tenth_to_ten_times_of_the_rate_and_of_a_methods_decimals():
    assert space("fedavg") == {RATE: Range(3e-4, 3e-2)}
    assert space("fedprox", changes=["training.learning_rate=0.1"]) == {
        RATE: Range(0.01, 1.0),
        "options.mu": Range(0.01, 1.0),
    }
    assert set(space("moon")) == {RATE, "options.mu", "options.temperature"}
    assert "options.extra_epochs" not in space("fedavg-more")  # a budget is not searched


def test_what_is_refused_above_one_ends_there():
    assert space("fedali-paper")["options.strength"] == Range(0.02, 1.0)  # a share
    assert "options.strength" not in space("l2only")  # 0 there: the ablation stays one


@pytest.mark.parametrize("name", [*METHODS, *PRESETS, "fedavg+gate"])
def test_every_method_takes_all_ends_of_its_space(name):
    scenario = one_line(load_scenario("digits"), name)
    (line,) = scenario.methods
    found = space_of(scenario, line)
    for end in ("low", "high"):
        changed = with_range(scenario, line, {key: getattr(range_, end) for key, range_ in found.items()})
        method = build_method(name, changed.methods[0].options)
        for key, range_ in found.items():
            if key != RATE:
                assert getattr(method, key.removeprefix("options.")) == getattr(range_, end)
        assert changed.training_for(changed.methods[0]).learning_rate == getattr(found[RATE], end)
        assert changed.training.learning_rate == scenario.training.learning_rate


def test_another_range_and_other_settings():
    found = space(
        "fedali-paper",
        "learning_rate=1e-4:1e-2",
        "options.warmup=0:3",
        "alp.scale=1.0:16.0",
        "options.strength=0.0:0.5",
    )
    assert found[RATE] == Range(1e-4, 1e-2)
    assert found["options.warmup"] == Range(0, 3, log=False, whole=True)
    assert found["alp.scale"] == Range(1, 16)
    assert found["options.strength"] == Range(0, 0.5, log=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("options.mu", "--search takes KEY=LOW:HIGH"),
        ("options.mu=1", "--search takes KEY=LOW:HIGH"),
        ("options.mu=2:1", "--search takes KEY=LOW:HIGH"),
        ("options.mu=low:high", "--search takes KEY=LOW:HIGH"),
        ("mu=0.1:1.0", "known: alp.NAME, options.NAME, training.NAME"),
        ("options.mi=0.1:1.0", "no option 'mi'; known: answer, mu"),
        ("options.mu=-1.0:1.0", "mu is -1.0, it has to be"),
        ("training.rounds=1:9", "rounds: unknown setting"),
        ("alp.scales=1.0:2.0", "did you mean 'scale'"),
        ("alp.decay=0.5:2.0", "decay"),
    ],
)
def test_a_range_that_makes_no_sense_is_one_line(given, message):
    with pytest.raises(SettingsError, match=message) as failed:
        space("fedprox", given)
    assert "\n" not in str(failed.value)
