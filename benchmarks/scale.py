"""``make bench-scale``: many clients in one process, of which few train in a round; and a thousand that all do.

Samples are in a memory-mapped file; a client that does not train costs a few views of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.engines import MissingEngineError, make_engine
from benchmarks.measure import RoundClock, machine, memory, versions
from benchmarks.million import run_million, summary, write_trace
from benchmarks.processes import Launcher, leave_nothing
from benchmarks.simulator import Simulation, build_simulation, make_federation
from benchmarks.workloads import BATCH_SIZE, LEARNING_RATE, SEED
from fedali.engines.choose import resolve
from fedali.methods import FedAli, SharedState, build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import Adam
from fedali.recipe import Recipe

SHAPE, CLASSES, SAMPLES, EPOCHS = (128, 6), 6, 40, 2
_CHUNK = 500  # clients whose samples are made at once


@dataclass(frozen=True)
class Case:
    """How many clients there are, which share of them trains in a round, and for how many rounds."""

    name: str
    clients: int
    participation: float
    rounds: int
    engine: str
    workers: int
    data: str = ""
    scratch: str = ""


def write_samples(clients: int, folder: Path) -> None:
    """Windows [clients * SAMPLES, 128, 6] float16 and their labels as .npy files, a piece at a time."""
    count, rng = clients * SAMPLES, np.random.default_rng(SEED)
    y = rng.integers(0, CLASSES, count)
    np.save(folder / "y.npy", y, allow_pickle=False)
    centres = rng.standard_normal((CLASSES, *SHAPE), np.float32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (count, *SHAPE))
    for start in range(0, count, _CHUNK * SAMPLES):
        labels = y[start : start + _CHUNK * SAMPLES]
        x[start : start + len(labels)] = (
            rng.standard_normal((len(labels), *SHAPE), np.float32) + centres[labels]
        )
    x.flush()


def small_model() -> Model:
    """The registry's ``cnn1d`` with few channels and a linear head."""
    return build_model("cnn1d", SHAPE, CLASSES, alp=ALPSettings(), seed=SEED, channels=(16, 32, 32), hidden=0)


def run_case(case: Case) -> dict[str, Any]:
    """Run ``case`` in this process."""
    model, method = small_model(), build_method("fedali-head", {})
    assert isinstance(method, FedAli)
    engine = make_engine(
        case.engine,
        Recipe(model, method, Adam(LEARNING_RATE), SHAPE, EPOCHS, BATCH_SIZE, model.alp_layers[0].decay),
        workers=case.workers,
    )
    before = _anonymous()
    simulation = _build(case, model, method, engine)
    idle = (_anonymous() - before) / case.clients
    clock, rounds = RoundClock(), []

    def on_round(_: SharedState) -> None:
        clock.mark()
        seen = memory(os.getpid())
        parts = simulation.watch.take()
        rounds.append({**parts, "rss": seen["Rss"], "anonymous": seen["Anonymous"]})
        clock.resume()

    clock.mark()
    simulation.run(case.rounds, on_round)
    return {
        **{name: value for name, value in asdict(case).items() if name not in ("data", "scratch")},
        "engine": resolve(case.engine),  # type: ignore[arg-type]
        "trained_in_a_round": max(1, round(case.participation * case.clients)),
        "bytes_per_idle_client": idle,
        "bytes_kept_per_trained_client": simulation.site.store.bytes_per_client,
        "rounds": [{**a, **b} for a, b in zip(clock.rounds(), rounds, strict=True)],
        "versions": versions("fedali", "flwr", "torch", "numpy"),
    }


def _build(case: Case, model: Model, method: FedAli, engine: Any) -> Simulation:
    """Everything that exists for each client, also when it never trains."""
    folder = Path(case.data)
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in ("x", "y"))
    where = [slice(c * SAMPLES, (c + 1) * SAMPLES) for c in range(case.clients)]
    federation = make_federation([x[w] for w in where], [y[w] for w in where], CLASSES)
    return build_simulation(
        model,
        method,
        engine,
        federation,
        Path(case.scratch),
        seed=SEED,
        participation=case.participation,
    )


def _anonymous() -> int:
    gc.collect()
    return memory(os.getpid())["Anonymous"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", default="auto", help="one of ours by name")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="1,000 clients and 100: does it work?")
    parser.add_argument(
        "--million",
        action="store_true",
        help="1,000,000 clients, buffered rounds, a trace; prints what it found",
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(text: str) -> None:
    case = Case(**json.loads(text))
    try:
        if case.name == "million":
            stored = len(np.load(f"{case.data}/y.npy", mmap_mode="r")) // SAMPLES
            size = (
                stored,
                SAMPLES,
                case.clients,
                max(1, round(case.participation * case.clients)),
                case.rounds,
            )
            answer = run_million(Path(case.data), Path(case.scratch), *size, case.engine, case.workers)
        else:
            answer = run_case(case)
    except MissingEngineError as error:
        answer = {"skipped": str(error)}
    print("\n" + json.dumps(answer), flush=True)


def _million(arguments: argparse.Namespace, clients: int, scale: int) -> None:
    with tempfile.TemporaryDirectory(prefix="fedali-scale-") as scratch:
        print(f"writing samples, and who of {clients:,} clients is on", flush=True)
        write_samples(10_000 // scale, Path(scratch))
        write_trace(Path(scratch) / "on.csv", clients)
        launcher = Launcher(Path(sys.executable), Path(sys.executable), Path(scratch))
        case = Case(
            "million", clients, 0.001, 10, arguments.engine, arguments.workers, scratch, f"{scratch}/million"
        )
        answer = launcher.module("scale", "--case", json.dumps(asdict(case)))
    why = answer.get("skipped") or answer.get("failed")
    if why:
        sys.exit(f"million: {why}")
    print(summary(answer))
    if not arguments.quick:
        report.RESULTS.mkdir(exist_ok=True)
        (report.RESULTS / "scale_million.json").write_text(
            json.dumps({"machine": machine(), **answer}, indent=1) + "\n"
        )


def main() -> None:
    """Run both cases, each in a fresh process; write results and the page."""
    arguments = _arguments()
    if arguments.case:
        _child(arguments.case)
        return
    leave_nothing()
    scale = 10 if arguments.quick else 1
    if arguments.million:
        _million(arguments, 1_000_000 // scale, scale)
        return
    clients, everyone = 10_000 // scale, 1_000 // scale
    cases = []
    with tempfile.TemporaryDirectory(prefix="fedali-scale-") as scratch:
        print(f"writing samples of {clients} clients", flush=True)
        write_samples(clients, Path(scratch))
        launcher = Launcher(Path(sys.executable), Path(sys.executable), Path(scratch))
        for name, count, share, rounds in (("few", clients, 0.01, 10), ("all", everyone, 1.0, 2)):
            case = Case(
                name, count, share, rounds, arguments.engine, arguments.workers, scratch, f"{scratch}/{name}"
            )
            answer = launcher.module("scale", "--case", json.dumps(asdict(case)))
            why = answer.get("skipped") or answer.get("failed")
            if why:
                sys.exit(f"{name}: {why}")
            cases.append(answer)
    results = {"machine": machine(), "epochs": EPOCHS, "samples": SAMPLES, "cases": cases}
    print(report.scale_section(results))
    if not arguments.quick:
        report.RESULTS.mkdir(exist_ok=True)
        (report.RESULTS / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
        report.write_page()


if __name__ == "__main__":
    main()
