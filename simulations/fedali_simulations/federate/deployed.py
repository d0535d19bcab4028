"""What a training over real devices found, as the table of a simulation has it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali_server.gateway.rounds.metrics import names_of
from fedali_server.gateway.rounds.orders import EVALUATE, TRAIN
from fedali_server.run.folder import RunFolder
from fedali_simulations.scenario import Scenario

if TYPE_CHECKING:  # needed when a run has ended: importing it takes as long as a short round
    import pandas as pd

    from fedali_simulations.report.results import Results


@dataclass(frozen=True)
class DeployedRun:
    """A finished run of one line of a table, one seed, over devices."""

    title: str
    seed: int
    folder: Path


@dataclass(frozen=True)
class Traffic:
    """What a run cost on the way to devices: bytes to and from all of them in a round, means; and who was missed.

    ``states`` counts devices by how their rounds ended, over all rounds: ``done``, ``late``, ...
    """

    sent: float
    received: float
    seconds: float
    states: Mapping[str, int]


def collect_runs(scenario: Scenario, folder: Path, runs: Sequence[DeployedRun]) -> Results:
    """The results of complete runs. Devices have no data of others: there is no generalisation."""
    import pandas as pd

    from fedali_simulations.report.results import Results

    clients, selected, timing = [], {}, []
    for run in runs:
        stored = RunFolder(run.folder)
        done = json.loads((run.folder / "done.json").read_text("utf-8"))
        rounds = stored.rounds(int(done["rounds"]))
        frames = [_rows(facts) for facts in rounds]
        clients.append(pd.concat(frames, ignore_index=True).assign(method=run.title, seed=run.seed))
        selected[run.title, run.seed] = int(done["best_round"])
        seconds = float(pd.Series([facts["seconds"] for facts in rounds]).mean())
        timing.append({"method": run.title, "seconds_per_round": seconds, "cpu_seconds_per_round": math.nan})
    return Results(
        scenario,
        folder,
        pd.concat(clients, ignore_index=True),
        selected,
        None,
        pd.DataFrame(timing).groupby("method", sort=False).mean().reset_index(),
    )


def why_nobody_trained(run: DeployedRun) -> str | None:
    """Each device's latest reason where no update arrived in any round of a complete run; None where one did."""
    stored, reasons = RunFolder(run.folder), dict[str, str]()
    for facts in stored.rounds(int(json.loads((run.folder / "done.json").read_text("utf-8"))["rounds"])):
        for report in facts["reports"]:
            if report.get("kind", "train") != "train":
                continue
            if report["state"] == "done":
                return None
            reasons[str(report["device"])] = ": ".join(filter(None, (report["state"], report["reason"])))
    return "; ".join(f"{device} {reason}" for device, reason in reasons.items()) or "no site was there"


def traffic(run: DeployedRun) -> Traffic:
    """What a complete run cost."""
    import pandas as pd

    stored = RunFolder(run.folder)
    rounds = stored.rounds(int(json.loads((run.folder / "done.json").read_text("utf-8"))["rounds"]))
    states: dict[str, int] = {}
    for facts in rounds:
        for report in facts["reports"]:
            if report.get("kind", "train") == "train":
                states[report["state"]] = states.get(report["state"], 0) + 1
    per_round = [
        (
            sum(r["sent"] for r in facts["reports"]),
            sum(r["received"] for r in facts["reports"]),
            facts["seconds"],
        )
        for facts in rounds
    ]
    sent, received, seconds = (float(column) for column in pd.DataFrame(per_round).mean())
    return Traffic(sent, received, seconds, states)


def _known(columns: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Columns that a table has; whatever a device or a site called others, they are none of it."""
    return {name: columns[name] for name in ("client", *names) if name in columns}


def _rows(facts: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each device that took part in a round."""
    import pandas as pd

    tests = facts["evaluate"]
    if "samples" in tests and "test_samples" not in tests:  # of 0.1.0
        tests = {**tests, "test_samples": tests["samples"]}
    late = (
        not {"validation", "personalisation"} & facts["train"].keys()
    )  # what clients answer is said when they evaluate
    trained = pd.DataFrame(_known(facts["train"], "samples", *names_of(TRAIN, late=late)))
    evaluated = pd.DataFrame(_known(tests, "test_samples", *names_of(EVALUATE, late=late)))
    joined = trained if evaluated.empty else trained.merge(evaluated, on="client", how="outer")
    return joined.assign(round=int(facts["round"])).sort_values("client", ignore_index=True)
