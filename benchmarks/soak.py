"""Half an hour of random kills: ``make soak``.

A federation of two sites and six devices on loopback trains MotionSense or digits while, every few seconds, a process that was drawn is
killed: a device, a gateway, a site, the server, or the run itself; what was killed is started again. The end has to be that
of an undisturbed run, bit by bit. No process may grow in the undisturbed run, where each lives from the first round to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import load_file

from fedali_simulations.environment import environment
from fedali_simulations.federate.local_federation import LocalFederation
from fedali_simulations.federate.up import scenario_for
from fedali_simulations.setup import build_plan
from fedali_simulations.template import to_toml

RESULTS = Path(__file__).parent / "results" / "soak.json"
EVERY = 2.0  # seconds between two measurements of the undisturbed run
GROWTH = 1.1  # a process that lives through the undisturbed run ends with at most this times its early memory
SETTINGS = [
    "methods=fedali-paper",
    "alp.num_prototypes=16",
    "model.options.channels=[8,16]",
    "training.epochs=1",
]


@dataclass
class Soak:
    """What happened so far."""

    kills: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )  # MB, by kind of process
    seconds: float = 0.0


def main() -> None:
    """Run the soak, print and store what it found; exit code 1 when the end is another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument(
        "--rounds-per-minute", type=float, default=12.0, help="how long the run is: kills end with it"
    )
    options = parser.parse_args()
    rounds = max(3, round(options.minutes * options.rounds_per_minute))
    scenario = scenario_for("digits", [*SETTINGS, f"training.rounds={rounds}"], options.devices)
    plan = build_plan(scenario, scenario.methods[0], scenario.seed)
    with tempfile.TemporaryDirectory(prefix="fedali-soak-") as folder:
        root = Path(folder)
        local = LocalFederation(root, plan.federation, plan.seen, 2)
        local.provision()
        (root / "study.toml").write_text(to_toml(scenario))
        with local:
            calm = _undisturbed(local, root)
            soak = _disturbed(local, root, random.Random(options.seed), options.minutes * 60, options.every)
        found = _compare(root, calm, soak, rounds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "environment"}, indent=1))
    sys.exit(0 if found["same_bits"] and found["flat"] else 1)


def _run(local: LocalFederation, root: Path, name: str) -> subprocess.Popen[bytes]:
    out = root / name
    what = (
        ["--resume", str(out)]
        if (out / "federation.json").exists()
        else [str(root / "study.toml"), "--quorum", "1", "--out", str(out)]
    )
    words = [*what, "--kit", str(local.kit("operator")), "--json"]
    with (root / "logs" / f"run-{name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "fedali", "run", *words], stdout=log, stderr=log)


def _undisturbed(local: LocalFederation, root: Path) -> Soak:
    """The run without kills: its end is the reference, and its processes live from the first round to the last."""
    calm, started = Soak(), time.monotonic()
    run = _run(local, root, "undisturbed")
    while run.poll() is None:
        time.sleep(EVERY)
        _measure(local, calm)
    calm.seconds = time.monotonic() - started
    if run.returncode:
        log = root / "logs" / "run-undisturbed.log"
        raise SystemExit(f"the undisturbed run failed: {log.read_text()[-2000:]}")
    return calm


def _disturbed(local: LocalFederation, root: Path, draw: random.Random, seconds: float, every: float) -> Soak:
    """The run again, with kills for ``seconds``; then it may end."""
    soak, started, name = Soak(), time.monotonic(), "soaked"
    run = _run(local, root, name)
    kinds = ["device"] * 4 + ["gateway"] * 3 + ["site"] * 2 + ["server", "run"]
    while time.monotonic() - started < seconds and (run.poll() is None or run.returncode):
        time.sleep(draw.expovariate(1 / every))
        _measure(local, soak)
        kind = draw.choice(kinds)
        soak.kills[kind] += 1
        if kind == "run":
            run.kill()
            run.wait()
        elif kind == "gateway":
            pid = _gateway(local, draw.choice(local.sites))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        else:
            victim = {
                "device": draw.choice(local.devices),
                "site": draw.choice(local.sites),
                "server": "server",
            }[kind]
            local.processes[victim].kill_all()
            local.processes[victim].start()
        if run.poll() is not None and run.returncode:
            run = _run(local, root, name)
    while run.wait():
        run = _run(local, root, name)
    soak.seconds = time.monotonic() - started
    _measure(local, soak)
    return soak


def _gateway(local: LocalFederation, site: str) -> int | None:
    """The process of a site's gateway."""
    kit = str(local.kit(site))
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if kit in words and "fedali_server.gateway" in words:
            return int(path.parent.name)
    return None


def _measure(local: LocalFederation, soak: Soak) -> None:
    pids = {f"gateway {site}": _gateway(local, site) for site in local.sites}
    for name, process in local.processes.items():
        if process.running is not None and process.alive:
            pids[name] = process.running.pid
    for name, pid in pids.items():
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        soak.memory[name].append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _compare(root: Path, calm: Soak, soak: Soak, rounds: int) -> dict[str, object]:
    states = [
        load_file(next((root / name).glob("*/*/checkpoint.safetensors")))
        for name in ("undisturbed", "soaked")
    ]
    same = all((states[0][key] == states[1][key]).all() for key in states[0])
    accuracies = [_accuracy(root / name) for name in ("undisturbed", "soaked")]
    memory = {"undisturbed": _quarters(calm), "soaked": _quarters(soak)}
    return {
        "minutes": round(soak.seconds / 60, 2),
        "minutes_undisturbed": round(calm.seconds / 60, 2),
        "rounds": rounds,
        "kills": dict(soak.kills),
        "same_bits": bool(same),
        "personalisation_undisturbed": accuracies[0],
        "personalisation_soaked": accuracies[1],
        "flat": all(last <= GROWTH * first for first, last in memory["undisturbed"].values()),
        "memory_mb_first_and_last_quarter": memory,
        "environment": environment(),
    }


def _quarters(soak: Soak) -> dict[str, tuple[float, float]]:
    """Median resident memory (MB) of each process in the first quarter of its measurements, and in the last."""
    medians = {}
    for name, sizes in soak.memory.items():
        quarter = max(1, len(sizes) // 4)
        medians[name] = (
            round(statistics.median(sizes[:quarter]), 1),
            round(statistics.median(sizes[-quarter:]), 1),
        )
    return medians


def _accuracy(folder: Path) -> float:
    last = sorted(folder.glob("*/*/rounds/*.json"))[-1]
    return statistics.fmean(json.loads(last.read_text())["train"]["personalisation"])


if __name__ == "__main__":
    main()
