"""A comparison against the same numbers worked out by hand, loop by loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedali.errors import SettingsError
from fedali_simulations import load_scenario
from fedali_simulations.comparing.comparison import compare_measures
from fedali_simulations.comparing.measures import measures_of
from fedali_simulations.comparing.statistics import gini
from fedali_simulations.report.results import Results

METHODS, SEEDS, CLIENTS = ("a", "b", "c"), (3, 4, 5, 6), tuple("klmnopq")
RATIO = 0.6


def made(methods=METHODS, seeds=SEEDS, clients=CLIENTS, **changes) -> Results:
    """Two rounds, of which the second is chosen; method c has no server's model."""
    rng = np.random.default_rng(7)
    rows = []
    for method in methods:
        for seed in seeds:
            for round_ in (1, 2):
                for k, client in enumerate(clients):
                    numbers = rng.integers(5, 20, 6) / 20
                    rows.append(
                        {
                            **{"method": method, "seed": seed, "round": round_, "client": client},
                            **{"samples": 20.0 + k, "test_samples": 10.0 + 3 * k, "train_loss": 1.0},
                            **{"validation": 0.5, "validation_f1": 0.5},
                            **{"personalisation": numbers[0], "personalisation_f1": numbers[1]},
                            **{"generalisation": numbers[2], "generalisation_f1": numbers[3]},
                            "global": math.nan if method == "c" else numbers[4],
                            "global_f1": math.nan if method == "c" else numbers[5],
                            "personalisation_transductive": 0.1,
                            "personalisation_transductive_f1": 0.1,
                        }
                    )
    selected = {(method, seed): 2 for method in methods for seed in seeds}
    timing = pd.DataFrame({"method": list(methods), "cpu_seconds_per_round": 1.0})
    scenario = load_scenario("digits", ["seeds=4"])
    return replace(Results(scenario, Path("here"), pd.DataFrame(rows), selected, None, timing), **changes)


def costs(results: Results) -> pd.DataFrame:
    pairs = results.clients[["method", "seed"]].drop_duplicates()
    return pairs.assign(**{"bytes down": 40.0, "bytes up": 20.0, "compute": 0.5 + pairs["seed"] / 10})


def compared(results: Results, against: str = "a") -> pd.DataFrame:
    methods = list(dict.fromkeys(results.clients["method"]))
    found = compare_measures(measures_of(results, costs(results)), methods, against, RATIO)
    return found.set_index(["measure", "method"]).sort_index()


def values(results: Results, column: str) -> dict[tuple[str, int, str], float]:
    chosen = results.clients[results.clients["round"] == 2]
    return {(r["method"], r["seed"], r["client"]): r[column] for r in chosen.to_dict("records")}


def test_means_are_those_of_the_table():
    results = made()
    found, table = compared(results), results.table.set_index(["measure", "method"])
    for measure in ("personalisation", "generalisation", "global"):
        for method in METHODS:
            here, there = found.loc[measure, method], table.loc[measure, method]
            assert here["mean"] == pytest.approx(there["accuracy"], nan_ok=True)
            assert here["seed_std"] == pytest.approx(there["seed_std"], nan_ok=True)
            worst = (
                found.loc[f"{measure} worst decile", method]["mean"]
                if (f"{measure} worst decile", method) in found.index
                else math.nan
            )
            assert worst == pytest.approx(there["worst_decile"], nan_ok=True)
            assert found.loc[f"{measure} macro-F1", method]["mean"] == pytest.approx(
                there["macro_f1"], nan_ok=True
            )


def test_everything_by_hand():
    results = made()
    x, row = values(results, "generalisation"), compared(results).loc["generalisation", "b"]
    means = [np.mean([x["b", s, c] for c in CLIENTS]) for s in SEEDS]
    half = stats.t.ppf(0.975, 3) * np.std(means, ddof=1) / 2
    assert (row["low"], row["high"]) == pytest.approx((np.mean(means) - half, np.mean(means) + half))

    by_seed = [np.mean([x["b", s, c] - x["a", s, c] for c in CLIENTS]) for s in SEEDS]
    by_client = [np.mean([x["b", s, c] - x["a", s, c] for s in SEEDS]) for c in CLIENTS]
    error = math.sqrt((1 / 4 + RATIO) * np.var(by_seed, ddof=1))
    assert row["difference"] == pytest.approx(np.mean(by_seed))
    assert row["difference_high"] - row["difference"] == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert row["p_t"] == pytest.approx(2 * stats.t.sf(abs(np.mean(by_seed)) / error, 3))
    assert row["p_wilcoxon"] == pytest.approx(
        stats.wilcoxon(np.round(by_client, 10), zero_method="pratt").pvalue
    )
    assert (row["gain"], row["lose"]) == (sum(d > 1e-9 for d in by_client), sum(d < -1e-9 for d in by_client))
    assert row["gain"] + row["same"] + row["lose"] == row["clients"] == len(CLIENTS)

    places = [
        stats.rankdata([-np.mean([x[m, s, c] for s in SEEDS]).round(10) for m in METHODS]) for c in CLIENTS
    ]
    assert [compared(results).loc["generalisation", m]["rank"] for m in METHODS] == pytest.approx(
        np.mean(places, axis=0)
    )


def test_holm_is_over_the_methods_of_a_measure():
    found = compared(made())
    for test in ("p_wilcoxon", "p_t"):
        b, c = (found.loc["personalisation", m] for m in "bc")
        first, second = sorted((b, c), key=lambda row: row[test])
        assert first[f"{test}_holm"] == pytest.approx(min(1, 2 * first[test]))
        assert second[f"{test}_holm"] == pytest.approx(max(second[test], min(1, 2 * first[test])))
    assert math.isnan(found.loc["personalisation", "a"]["p_t"])
    # Of the server's model there are two, so that one is tested.
    assert found.loc["global", "b"]["p_t_holm"] == pytest.approx(found.loc["global", "b"]["p_t"])


def test_the_servers_model_weighs_clients_by_their_tests():
    results = made()
    x, row = values(results, "global"), compared(results).loc["global", "b"]
    sizes = [10 + 3 * k for k in range(len(CLIENTS))]
    means = [np.average([x["b", s, c] for c in CLIENTS], weights=sizes) for s in SEEDS]
    differences = [np.average([x["b", s, c] - x["a", s, c] for c in CLIENTS], weights=sizes) for s in SEEDS]
    assert row["mean"] == pytest.approx(np.mean(means))
    assert row["difference"] == pytest.approx(np.mean(differences))


def test_numbers_of_all_clients_together_are_tested_over_seeds_alone():
    results = made()
    x, row = values(results, "personalisation"), compared(results).loc["personalisation Gini", "b"]
    spread = {m: [gini([x[m, s, c] for c in CLIENTS]) for s in SEEDS] for m in "ab"}
    assert row["mean"] == pytest.approx(np.mean(spread["b"]))
    assert row["difference"] == pytest.approx(np.mean(spread["b"]) - np.mean(spread["a"]))
    assert math.isnan(row["p_wilcoxon"])
    assert 0 < row["p_t"] <= 1
    ranks = [stats.rankdata([spread["a"][s], spread["b"][s]])[1] for s in range(4)]
    assert 1 <= row["rank"] <= 3
    assert (np.mean(ranks) > 1.5) == (
        row["rank"] > compared(results).loc["personalisation Gini", "a"]["rank"]
    )


def test_equal_methods_do_not_differ():
    results = made()
    twin = results.clients[results.clients["method"] == "a"].assign(method="b")
    clients = pd.concat([results.clients[results.clients["method"] != "b"], twin])
    found = compared(replace(results, clients=clients))
    for measure in ("personalisation", "generalisation", "global", "personalisation macro-F1"):
        row = found.loc[measure, "b"]
        assert (row["difference"], row["p_t"], row["p_wilcoxon"]) == (0, 1, 1)
        assert (row["difference_low"], row["difference_high"]) == (0, 0)
        assert (row["gain"], row["same"], row["lose"]) == (0, len(CLIENTS), 0)
        assert not row["differs"]
        assert row["rank"] == found.loc[measure, "a"]["rank"]


def test_a_method_that_is_better_for_everybody_differs_and_one_seed_alone_says_nothing():
    results = made()
    better = results.clients[results.clients["method"] == "a"].assign(method="b")
    better["personalisation"] += 0.2 + 0.001 * better["seed"]
    clients = pd.concat([results.clients[results.clients["method"] != "b"], better])
    row = compared(replace(results, clients=clients)).loc["personalisation", "b"]
    assert row["differs"]
    assert (row["gain"], row["lose"]) == (len(CLIENTS), 0)
    assert row["p_wilcoxon"] == pytest.approx(2 / 2 ** len(CLIENTS))
    one = compared(replace(results, clients=clients[clients["seed"] == 3])).loc["personalisation", "b"]
    assert one["difference"] == pytest.approx(0.203)
    assert math.isnan(one["p_t"])
    assert not one["differs"]


def test_the_order_of_rows_seeds_and_clients_changes_nothing():
    results = made()
    shuffled = results.clients.sample(frac=1, random_state=3)
    order = pd.concat([shuffled[shuffled["method"] == m] for m in METHODS])
    pd.testing.assert_frame_equal(compared(replace(results, clients=order)), compared(results))
    renamed = results.clients.assign(seed=results.clients["seed"].map({3: 6, 4: 5, 5: 3, 6: 4}))
    again = compared(replace(results, clients=renamed)).drop(index="compute")
    pd.testing.assert_frame_equal(again, compared(results).drop(index="compute"), rtol=1e-12)


def test_against_another_turns_the_sign_and_keeps_p():
    results = made()
    forth, back = (
        compared(results).loc["personalisation", "b"],
        compared(results, "b").loc["personalisation", "a"],
    )
    assert back["difference"] == pytest.approx(-forth["difference"])
    assert (back["p_t"], back["p_wilcoxon"]) == pytest.approx((forth["p_t"], forth["p_wilcoxon"]))
    assert (back["gain"], back["lose"]) == (forth["lose"], forth["gain"])
    with pytest.raises(SettingsError, match="no method 'd' to compare with; known: a, b, c"):
        compared(results, "d")


def test_clients_that_were_not_tested_are_paired_where_both_were():
    results = made()
    clients = results.clients.copy()
    clients.loc[(clients["method"] == "b") & (clients["client"] == "k"), "generalisation"] = math.nan
    clients.loc[
        (clients["method"] == "a") & (clients["client"] == "l") & (clients["seed"] == 3), "generalisation"
    ] = math.nan
    found = compared(replace(results, clients=clients)).loc["generalisation", "b"]
    x = values(results, "generalisation")
    pairs = {
        (s, c): x["b", s, c] - x["a", s, c] for s in SEEDS for c in CLIENTS if c != "k" and (s, c) != (3, "l")
    }
    by_seed = [np.mean([d for (seed, _), d in pairs.items() if seed == s]) for s in SEEDS]
    assert found["clients"] == len(CLIENTS) - 1
    assert found["difference"] == pytest.approx(np.mean(by_seed))


def test_a_new_accuracy_and_its_calibration_are_compared_by_their_columns_alone():
    results = made()
    clients = results.clients.assign(
        gate=0.5, gate_f1=0.4, personalisation_ece=results.clients["generalisation"] / 10
    )
    names = dict.fromkeys(compared(replace(results, clients=clients)).index.get_level_values("measure"))
    assert {"gate", "gate worst decile", "gate macro-F1", "personalisation ECE"} <= set(names)
    assert not any("transductive" in name or "validation" in name for name in names)
    assert not any("ECE" in name for name in compared(results).index.get_level_values("measure"))


def test_costs_are_shown_and_not_tested():
    found = compared(made())
    assert found.loc["compute", "b"]["mean"] == pytest.approx(0.95)
    assert found.loc["bytes up", "b"]["mean"] == 20
    assert found.loc["compute", "b"][["p_t", "p_wilcoxon", "difference"]].isna().all()
    assert not found.loc[["compute", "bytes up", "bytes down"]]["differs"].any()
