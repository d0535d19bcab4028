"""Our methods beside PFLlib's, on the same splits, module and initial weights: docs/peers.md.

``--resume`` goes on with what is not measured yet, ``--report`` writes the page of what is there. Numbers go to benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.checkout import COMMIT, find_peer, open_peer
from benchmarks.peers.report import page
from fedali.errors import FedaliError, did_you_mean
from fedali.support.files import write_text
from fedali_simulations.environment import environment

RESULTS = Path(__file__).parent.parent / "results" / "peers.json"
PAGE = Path(__file__).parent.parent.parent / "docs" / "peers.md"


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Both, on the same batches in double precision, and each in its own order as it is otherwise."""
    from benchmarks.peers.observed import accuracies
    from benchmarks.peers.ours import engine_in_double, run_in_double, run_ours
    from benchmarks.peers.peer import PeerRun
    from fedali_simulations.scenario import load_scenario
    from fedali_simulations.setup import build_setup

    line = f'methods=[{{name = "{case.ours}"}}]'
    scenario = load_scenario("digits", [line, "evaluation.transductive=false", *case.settings])
    setup = build_setup(scenario, scenario.methods[0], seed)
    double = engine_in_double(setup)
    ours = run_in_double(scenario, setup, double, seed)
    theirs = PeerRun(case, scenario, setup, seed, ours=True, dtype=torch.float64)()
    setup = build_setup(scenario, scenario.methods[0], seed)
    single = setup.sites[0].engine
    as_simulated = run_ours(scenario, setup)
    shuffled = PeerRun(case, scenario, setup, seed, ours=False, dtype=torch.float32)()
    return {
        "method": case.title,
        "seed": seed,
        "apart": ours.differences(theirs),
        "ours": accuracies(setup, double, ours.last[1]),
        "theirs": accuracies(setup, double, theirs.last[1]),
        "as_simulated": accuracies(setup, single, as_simulated.last[1]),
        "shuffled": accuracies(setup, single, shuffled.last[1]),
    }


def main() -> None:
    """Measure, store, report."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("--seeds", default="0,1", help="seeds of the scenario, 0,1 without")
    parser.add_argument("--methods", default="", help="names of ours, by commas; nothing is written then")
    parser.add_argument("--resume", action="store_true", help="keep what is measured")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    try:
        chosen = chosen_cases(options.methods)
        seeds = seeds_of(options.seeds)
        if not options.report:
            open_peer(find_peer())
    except FedaliError as error:
        sys.exit(f"peers: {error}")
    kept = (options.resume or options.report) and not options.methods and RESULTS.exists()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if kept else {"runs": []}
    known = {(run["method"], run["seed"]) for run in results["runs"]}
    for seed in () if options.report else seeds:
        for case in chosen:
            if (case.title, seed) in known:
                continue
            started = time.perf_counter()
            run = measure(case, seed)
            results["runs"].append(run)
            results |= {"commit": COMMIT, "environment": environment()}
            if not options.methods:
                write_text(RESULTS, json.dumps(results, indent=1) + "\n")
            apart = ", ".join(
                f"{max(pair):.0e} after round {round_}" for round_, pair in run["apart"].items()
            )
            print(
                f"{case.title}, seed {seed}: largest difference {apart}; {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    if results["runs"]:
        text = page(results)
        if not options.methods:
            write_text(PAGE, text)
        print(text)


def seeds_of(words: str) -> list[int]:
    """Seeds by commas. Raises ``FedaliError`` for what is none."""
    try:
        return [int(seed) for seed in words.split(",")]
    except ValueError:
        raise FedaliError(f"--seeds is {words!r}: give whole numbers by commas, 0,1 for example") from None


def chosen_cases(names: str) -> list[Case]:
    """The rows of our methods called ``names``; all for ``""``. Raises ``FedaliError`` for one that there is none of."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = list(dict.fromkeys(case.ours for case in CASES))
    for name in wanted:
        if name not in known:
            raise FedaliError(f"PFLlib has no {name!r} beside ours; {did_you_mean(name, known)}")
    return [case for case in CASES if not wanted or case.ours in wanted]


if __name__ == "__main__":
    main()
