"""A scenario over real processes on this machine: the server, sites, gateways and devices of ``LocalFederation``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fedali.answers import BUNDLED
from fedali.data.sources.named import people_of
from fedali.errors import SettingsError
from fedali_server.run.federated import RunProgress
from fedali_simulations.federate import running
from fedali_simulations.federate.local_federation import LocalFederation
from fedali_simulations.federate.running import Options, Outcome
from fedali_simulations.machines.site_monitor import Seen, SiteMonitor
from fedali_simulations.report.results import Results
from fedali_simulations.scenario import Scenario, load_scenario
from fedali_simulations.setup import build_plan

Say = Callable[[str], None]


def scenario_for(source: str, changes: Sequence[str], devices: int) -> Scenario:
    """A scenario with as many clients as devices; the first method that devices can train and one seed, unless the changes say otherwise.

    Raises ``SettingsError`` for settings that make no sense.
    """
    known = load_scenario(source, changes)
    asked = {change.partition("=")[0] for change in changes}
    more = [] if "seeds" in asked else ["seeds=1"]
    if known.partition.kind == "natural":
        people = people_of(known.data.source or "")
        if people and known.data.subjects is None and known.data.clients == "people":
            more.append(f"data.subjects={json.dumps(people[:devices])}")
    else:
        more.append(f"partition.clients={devices}")
    simulated = ("transductive=false", "unseen_clients=0", "unseen_samples=[]")
    found = load_scenario(source, [*more, *changes, *(f"evaluation.{setting}" for setting in simulated)])
    methods = [line for line in known.methods if not line.is_baseline]
    able = [line for line in methods if line.build().answer in BUNDLED]
    lines = known.methods if "methods" in asked else (able or methods or known.methods)[:1]
    return found.model_copy(update={"methods": tuple(lines)})


def bring_up(
    scenario: Scenario,
    folder: Path,
    sites: int,
    options: Options,
    report: Callable[[str, RunProgress], None],
    say: Say = lambda _: None,
    seen: Callable[[Seen], None] = lambda _: None,
    *,
    devices: int | None = None,
) -> Outcome:
    """Start a federation in ``folder``, train, and end it; what runs is over when this returns or raises.

    ``report`` is told of rounds, ``say`` of beginnings, ``seen`` once a second of what devices are at; ``devices`` is how many were asked for.

    A folder of an earlier call is taken up again: its run goes on after its last complete round.
    """
    plan = build_plan(scenario, scenario.methods[0], scenario.seed)
    if scenario.seeds > 1:
        raise SettingsError(
            "seeds change what each device holds: run them one after another, with --set seed=N"
        )
    local = LocalFederation(folder, plan.federation, plan.seen, sites)
    if devices is not None and devices != len(local.devices):
        say(f"the data are of {len(local.devices)} clients: there are as many devices, not {devices}")
    say("provisioning certificates, kits and data ...")
    local.provision()
    run = folder / "run"
    if not (run / "federation.json").exists():
        running.prepare_scenario(scenario, run, {"sites": sites, **options}, local.operator)
    say(f"starting the server, {sites} sites and {len(local.devices)} devices ...")
    with local, SiteMonitor(local.sockets, seen):
        return running.go_on(run, local.operator, report, say, local.check)


def simulate_same(scenario: Scenario, sites: int, folder: Path, say: Say = lambda _: None) -> Results:
    """The simulation of the same federation."""
    from fedali_simulations.study import simulate

    say("simulating the same federation ...")
    return simulate(scenario.model_copy(update={"sites": sites}), out=folder)
