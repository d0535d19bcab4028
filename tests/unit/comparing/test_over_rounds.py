"""What is seen over rounds against the same worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from fedali.errors import SettingsError
from fedali_simulations import load_scenario
from fedali_simulations.comparing import numbers
from fedali_simulations.comparing.comparison import Comparison, Ratio, compare_measures
from fedali_simulations.comparing.measures import measures_of
from fedali_simulations.comparing.over_rounds import forgetting, read_targets, to_targets
from fedali_simulations.report.results import Results

OWN = {  # by method and seed, of two clients in three rounds
    ("a", 0): ([0.5, 0.9, 0.8], [0.6, 0.7, 0.9]),
    ("a", 1): ([0.9, 0.9, 0.9], [0.9, 0.9, 0.5]),
    ("b", 0): ([0.1, 0.2, 0.3], [0.3, math.nan, math.nan]),
    ("b", 1): ([0.7, 0.9, 0.1], [0.9, 0.9, math.nan]),
}
SAMPLES = {"k": 10.0, "l": 30.0}


def results() -> Results:
    """Everyone's data are tested in rounds 2 and 3, the server's model is too, the second round is chosen."""
    rows = []
    for (method, seed), curves in OWN.items():
        for client, curve in zip(SAMPLES, curves, strict=True):
            for round_, own in enumerate(curve, 1):
                due = math.nan if round_ == 1 or math.isnan(own) else 1.0
                rows.append(
                    {
                        **{"method": method, "seed": seed, "client": client, "round": round_},
                        "train_loss": math.nan if math.isnan(own) else 0.5,
                        **{"personalisation": own, "personalisation_f1": own},
                        **{"generalisation": due * own / 2, "generalisation_f1": due * own / 2},
                        **{"global": due * own / 4, "global_f1": due * own / 4},
                        "test_samples": due * SAMPLES[client],
                        "samples": 7.0,
                    }
                )
    selected = dict.fromkeys(OWN, 2)
    scenario = load_scenario("digits", ["seeds=2", "evaluation.generalisation_every=2"])
    timing = pd.DataFrame({"method": ["a", "b"], "cpu_seconds_per_round": 1.0})
    return Results(scenario, Path("here"), pd.DataFrame(rows), selected, None, timing)


def costs() -> pd.DataFrame:
    rows = [{"method": m, "seed": s, "bytes down": 100.0, "bytes up": 50.0, "compute": 2.0} for m, s in OWN]
    return pd.DataFrame(rows)


def test_forgetting_is_the_best_less_the_last_of_each_client():
    own, everyone = forgetting(results())
    assert (own.name, everyone.name) == ("forgetting own", "forgetting all")
    assert own.clients.loc[(0, "k"), "a"] == pytest.approx(0.1)
    assert own.clients.loc[(0, "l"), "a"] == 0
    assert math.isnan(own.clients.loc[(0, "l"), "b"])  # tested once
    assert own.clients.loc[(1, "l"), "b"] == 0  # its last is of the second round
    assert own.seeds.loc[1].to_dict() == pytest.approx({"a": 0.2, "b": 0.4})
    assert everyone.seeds.loc[1, "a"] == pytest.approx((0 + 0.2) / 2)
    assert everyone.seeds.loc[0, "b"] == 0


def test_a_target_is_reached_in_the_first_round_that_measures_it():
    found = {m.name: m.seeds for m in to_targets(results(), costs(), {"personalisation": 0.8, "global": 0.2})}
    rounds = found["to personalisation 0.8 rounds"]
    assert rounds.loc[0, "a"] == 2  # (0.9 + 0.7) / 2
    assert rounds.loc[1].to_dict() == {"a": 1, "b": 1}
    assert math.isnan(rounds.loc[0, "b"])
    assert found["to personalisation 0.8 bytes"].loc[0, "a"] == 4 * 150  # two clients in two rounds
    assert found["to personalisation 0.8 compute"].loc[1].to_dict() == {"a": 4, "b": 4}
    assert math.isnan(found["to personalisation 0.8 compute"].loc[0, "b"])
    by_samples = (10 * 0.9 + 30 * 0.7) / 40 / 4  # below 0.2, where the plain mean is 0.2
    assert by_samples < 0.2
    assert found["to global 0.2 rounds"].loc[0, "a"] == 3
    assert found["to global 0.2 rounds"].loc[1, "a"] == 2


def test_what_is_not_reached_is_said():
    table, targets = results(), {"personalisation": 0.8, "generalisation": 0.99}
    measures = [*measures_of(table, costs()), *to_targets(table, costs(), targets)]
    rows = compare_measures(measures, ["a", "b"], "a", 0.5)
    compared = Comparison(table.scenario, (), "a", Ratio(1, 2), tuple(measures), rows)

    def said(measure, method):
        return numbers.other(compared.row(measure, method), compared)

    assert said("to personalisation 0.8 rounds", "a") == "1.5"
    assert said("to personalisation 0.8 rounds", "b") == "1.0 (1/2)"
    assert said("to generalisation 0.99 rounds", "a") == "not reached"
    words = "\n".join(numbers.explained(compared))
    assert "mean generalisation over clients, on test data, is 99 % or more (measured every 2 rounds" in words
    assert "to personalisation 0.8: the first round whose mean personalisation over clients, on test" in words


def test_generalisation_to_others_leaves_own_samples_out():
    found = {m.name: m for m in measures_of(results(), costs())}["generalisation others"]
    right = 0.45 * 40 - 0.9 * 10  # of client k of method a, seed 0, in round 2
    assert found.clients.loc[(0, "k"), "a"] == pytest.approx(right / 30)
    assert found.better == "more"
    assert found.about == "generalisation"


@pytest.mark.parametrize(
    "text", ["personalisation", "personalisation=90", "personalisation=much", "x=0", "x=nan"]
)
def test_a_target_that_is_none_is_one_line(text):
    with pytest.raises(SettingsError, match=r"--target takes NAME=VALUE.*0\.9"):
        read_targets([text])


def test_an_accuracy_that_there_is_not_is_named():
    wrong = "personalization: no such accuracy; did you mean 'personalisation'"
    with pytest.raises(SettingsError, match=wrong):
        read_targets(["personalization=0.8"])
    with pytest.raises(SettingsError, match="validation: no method here has that accuracy; "):
        list(to_targets(results(), costs(), {"validation": 0.8}))
    assert read_targets(["global = 0.5", "validation=1"]) == {"global": 0.5, "validation": 1}
