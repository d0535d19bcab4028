"""Simulate federations on one machine.

For example::

    from fedali_simulations import simulate

    results = simulate("digits", overrides=["methods=fedali,fedavg"], rounds=5)
    print(results.table)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali_simulations.comparing.comparison import Comparison as Comparison
    from fedali_simulations.comparing.runs import compare_runs as compare_runs
    from fedali_simulations.report.results import Results as Results
    from fedali_simulations.scenario import Scenario as Scenario
    from fedali_simulations.scenario import builtin_scenarios as builtin_scenarios
    from fedali_simulations.scenario import load_scenario as load_scenario
    from fedali_simulations.study import resume as resume
    from fedali_simulations.study import simulate as simulate
    from fedali_simulations.tracking.callbacks import Callback as Callback

_HOMES = {
    "Callback": "fedali_simulations.tracking.callbacks",
    "Comparison": "fedali_simulations.comparing.comparison",
    "compare_runs": "fedali_simulations.comparing.runs",
    "Results": "fedali_simulations.report.results",
    "Scenario": "scenario",
    "builtin_scenarios": "scenario",
    "load_scenario": "scenario",
    "resume": "study",
    "simulate": "study",
}

__all__ = [
    "Callback",
    "Comparison",
    "Results",
    "Scenario",
    "builtin_scenarios",
    "compare_runs",
    "load_scenario",
    "resume",
    "simulate",
]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
