"""``make bench``: our engines, Flower with Ray and pfl-research on the same work, interleaved.

Each contender runs in a process of its own; a repetition visits all of them before the next one begins, so that a slow
minute of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.clients import draw_sizes, write_clients
from benchmarks.engines import compared
from benchmarks.measure import machine
from benchmarks.order import Order
from benchmarks.processes import ROOT, Launcher, leave_nothing
from benchmarks.workloads import BATCH_SIZE, EPOCHS, WORKLOADS, Workload, flops_per_sample

RIVALS = ("flower-ray", "pfl")
_IDLE_ROUNDS = 5  # steady ones without training


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        workloads: their names.
        contenders: their names.
        repetitions: how often each contender runs each workload.
        steady_rounds: rounds after the first; None for the workload's own number.
        clients: in a round; None for the workload's own number.
        epochs: of a client update.
        workers: threads of ours, actors of Ray.
    """

    workloads: tuple[str, ...]
    contenders: tuple[str, ...]
    repetitions: int
    steady_rounds: int | None
    clients: int | None
    epochs: int
    workers: int

    def runs(self, workload: Workload) -> list[tuple[str, int]]:
        """Contenders with their epochs; 0 epochs measure what is not training."""
        runs = [(contender, self.epochs) for contender in self.contenders]
        if workload.idle_clients:
            others = [contender for contender in self.contenders if not contender.startswith("fedali-")]
            ours = ["fedali-echo"] if len(others) < len(self.contenders) else []
            runs += [(contender, 0) for contender in (*ours, *others)]
        return runs

    def clients_of(self, workload: Workload) -> int:
        """Clients of a round."""
        return self.clients or workload.clients

    def idle_clients_of(self, workload: Workload) -> int:
        """Clients of a round without training."""
        return min(workload.idle_clients, self.clients or workload.idle_clients)

    def steady_rounds_of(self, workload: Workload) -> int:
        """Measured rounds after the first."""
        return self.steady_rounds or workload.steady_rounds


def run(plan: Plan, launcher: Launcher, path: Path) -> dict[str, Any]:
    """Run ``plan``; results are written to ``path`` after every run, and returned."""
    results = _header(plan)
    for name in plan.workloads:
        workload = WORKLOADS[name]
        write_clients(workload, plan.clients_of(workload), _data(launcher, name, plan.epochs))
        if workload.idle_clients:
            write_clients(workload, plan.idle_clients_of(workload), _data(launcher, name, 0))
    for repetition in range(plan.repetitions):
        for name in plan.workloads:
            peak = launcher.module("peak")
            results["peaks"].append({"repetition": repetition, "workload": name, **peak})
            for contender, epochs in plan.runs(WORKLOADS[name]):
                if contender in results["skipped"]:
                    continue
                with tempfile.TemporaryDirectory(dir=launcher.scratch, prefix="run-") as scratch:
                    answer = launcher.contender(_order(plan, contender, name, epochs, launcher, scratch))
                _take(results, answer, contender, name, epochs, repetition)
                path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def merged(before: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """``before`` with the workloads of ``again`` measured anew; each says so. Numbers of two runs are never in one workload.

    Raises ``SystemExit`` when the machines differ.
    """
    for key in ("processor", "cores", "family_model"):
        if before["machine"][key] != again["machine"][key]:
            raise SystemExit(
                f"{key} was {before['machine'][key]!r} and is {again['machine'][key]!r}: run all of it again"
            )
    names = set(again["workloads"])
    found = dict(before)
    note = {"load_before": again["machine"]["load_before"], "repetitions": again["plan"]["repetitions"]}
    found["workloads"] = {
        name: {**again["workloads"][name], "again": note} if name in names else facts
        for name, facts in before["workloads"].items()
    }
    for key in ("peaks", "runs", "failed"):
        kept = [one for one in before[key] if one["workload"] not in names]
        found[key] = kept + again[key]
    found["skipped"] = before["skipped"] | again["skipped"]
    return found


def _data(launcher: Launcher, workload: str, epochs: int) -> Path:
    return launcher.scratch / "data" / (workload if epochs else f"{workload}-idle")


def _order(plan: Plan, contender: str, workload: str, epochs: int, launcher: Launcher, scratch: str) -> Order:
    return Order(
        contender=contender,
        workload=workload,
        rounds=1 + (plan.steady_rounds_of(WORKLOADS[workload]) if epochs else _IDLE_ROUNDS),
        epochs=epochs,
        data=str(_data(launcher, workload, epochs)),
        scratch=scratch,
        workers=plan.workers,
        started=0.0,
    )


def _take(
    results: dict[str, Any],
    answer: dict[str, Any],
    contender: str,
    workload: str,
    epochs: int,
    repetition: int,
) -> None:
    where = {"contender": contender, "workload": workload, "epochs": epochs, "repetition": repetition}
    title = f"{repetition + 1} {workload:3} {contender}{'' if epochs else ' without training'}"
    if "skipped" in answer:
        results["skipped"][contender] = answer["skipped"]
        _say(f"{title}: skipped: {answer['skipped']}")
    elif "failed" in answer:
        results["failed"].append({**where, "why": answer["failed"]})
        _say(f"{title}: failed: {answer['failed']}")
    else:
        results["runs"].append({**where, **answer})
        rounds = " ".join(f"{r['seconds']:.2f}" for r in answer["rounds"])
        _say(
            f"{title}: first round done after {answer['first_round_done']:.1f} s, rounds {rounds} s, "
            f"{answer['peak_memory'] / 1e6:.0f} MB, loss {answer['final_loss']:.3g}"
        )


def _header(plan: Plan) -> dict[str, Any]:
    workloads = {}
    for name in plan.workloads:
        workload = WORKLOADS[name]
        sizes, model = draw_sizes(plan.clients_of(workload)), workload.model()
        workloads[name] = {
            "description": workload.description,
            "parameters": model.parameter_layout.size,
            "prototype_values": model.prototype_layout.size,
            "clients": len(sizes),
            "idle_clients": plan.idle_clients_of(workload),
            "steady_rounds": plan.steady_rounds_of(workload),
            "samples": int(sizes.sum()),
            "steps": int((-(-sizes // BATCH_SIZE)).sum()) * plan.epochs,
            "flops_per_sample": flops_per_sample(workload),
        }
    return {
        "machine": {**machine(), "load_before": round(os.getloadavg()[0], 2)},
        "plan": {
            "repetitions": plan.repetitions,
            "epochs": plan.epochs,
            "batch_size": BATCH_SIZE,
            "workers": plan.workers,
        },
        "workloads": workloads,
        "peaks": [],
        "runs": [],
        "skipped": {},
        "failed": [],
    }


def _say(line: str) -> None:
    print(line, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="fedali-<engine>, flower-ray, pfl")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--rounds", type=int, help="steady rounds, after the first")
    parser.add_argument("--clients", type=int, help="clients in a round")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--workers", type=int, default=2, help="threads of ours, actors of Ray")
    parser.add_argument(
        "--again", action="store_true", help="measure these workloads anew, and keep the others' numbers"
    )
    parser.add_argument("--quick", action="store_true", help="4 clients, 1 steady round, once: does it work?")
    parser.add_argument("--pfl-python", type=Path, default=ROOT / ".venv-pfl" / "bin" / "python")
    arguments = parser.parse_args()
    arguments.contenders = arguments.contenders or [*(f"fedali-{name}" for name in compared()), *RIVALS]
    for contender in arguments.contenders:
        if contender not in RIVALS and not contender.startswith("fedali-"):
            parser.error(f"unknown contender {contender!r}; there are fedali-<engine>, {', '.join(RIVALS)}")
    return arguments


def main() -> None:
    """Run, then write results and the page."""
    arguments = _arguments()
    leave_nothing()
    quick = arguments.quick
    plan = Plan(
        workloads=tuple(arguments.workloads),
        contenders=tuple(arguments.contenders),
        repetitions=1 if quick else arguments.repetitions,
        steady_rounds=1 if quick else arguments.rounds,
        clients=4 if quick else arguments.clients,
        epochs=arguments.epochs,
        workers=arguments.workers,
    )
    report.RESULTS.mkdir(exist_ok=True)
    whole = report.RESULTS / "bench.json"
    path = (
        report.RESULTS / "quick.json"
        if quick
        else report.RESULTS / "again.json"
        if arguments.again
        else whole
    )
    with tempfile.TemporaryDirectory(prefix="fedali-bench-") as scratch:
        # Not resolved: a virtual environment's interpreter is a link that finds its packages by its own path.
        launcher = Launcher(Path(sys.executable), arguments.pfl_python.absolute(), Path(scratch))
        results = run(plan, launcher, path)
    if quick:
        print(report.page(results, None))
    else:
        if arguments.again:
            together = merged(json.loads(whole.read_text()), results)
            whole.write_text(json.dumps(together, indent=1) + "\n")
            path.unlink()
        report.write_page()


if __name__ == "__main__":
    main()
