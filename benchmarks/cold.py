"""``make bench-cold``: the scenario of ``make simulate`` from the start of a process, one thread, against a plain torch loop.

The plain loop is what PFLlib and most papers' code do: for each client a copy of the weights, a ``DataLoader``, ``Adam``,
``backward``; accuracy of each client's model on its own validation and test data after every round. Splits, architecture, epochs and
batch are those of ``digits``. Each contender runs in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import machine

ROUNDS = 15
CHANGES = ["methods=fedavg", "training.engine=loop", "seeds=1", "evaluation.generalisation_every=1000"]


def plain(started: float) -> dict[str, list[float]]:
    """Seconds from ``started`` to the end of each round of the plain loop."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from fedali_simulations.data import load_federation
    from fedali_simulations.scenario import load_scenario

    torch.set_num_threads(1)
    torch.manual_seed(0)
    scenario = load_scenario("digits", CHANGES)
    training = scenario.training
    federation = load_federation(scenario, 0)

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(8, 16), nn.GELU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.GELU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 10)),
        )

    server, model = network(), network()
    loaders, tests = [], []
    for client, normalise in zip(federation.clients, federation.normalisation, strict=True):
        parts = [
            (torch.from_numpy(normalise(x)), torch.from_numpy(y))
            for x, y in (
                (client.x_train, client.y_train),
                (client.x_validation, client.y_validation),
                (client.x_test, client.y_test),
            )
        ]
        loaders.append(DataLoader(TensorDataset(*parts[0]), training.batch_size, shuffle=True))
        tests.append(parts[1:])
    ends = []
    for _ in range(ROUNDS):
        sums = [torch.zeros_like(p) for p in server.parameters()]
        total = sum(len(loader.dataset) for loader in loaders)  # type: ignore[arg-type]
        for loader, held in zip(loaders, tests, strict=True):
            model.load_state_dict(server.state_dict())
            optimizer = torch.optim.Adam(model.parameters(), training.learning_rate)
            model.train()
            for _ in range(training.epochs):
                for x, y in loader:
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
            model.eval()
            with torch.no_grad():
                for x, y in held:
                    (model(x).argmax(1) == y).float().mean().item()
                for one, parameter in zip(sums, model.parameters(), strict=True):
                    one += parameter * (len(loader.dataset) / total)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter, one in zip(server.parameters(), sums, strict=True):
                parameter.copy_(one)
        ends.append(time.time() - started)
    return {"ends": ends}


def ours(started: float) -> dict[str, list[float]]:
    """The same of ``fedali simulate``: with metrics and a checkpoint written after each round."""
    from fedali.support.memory import collect_rarely

    collect_rarely()
    from fedali_simulations import study
    from fedali_simulations.run import run_job
    from fedali_simulations.scenario import load_scenario

    ends = []
    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario(
            "digits", [*CHANGES, f"training.rounds={ROUNDS}", "training.keep_models=none"]
        )
        (job,) = study.jobs_of(scenario, Path(folder))
        run_job(job, lambda progress: ends.append(time.time() - started) if progress.round else None)
    return {"ends": ends[:ROUNDS]}


def _measure(contender: str) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.cold", "--run", contender, "--started", repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found["ends"]


def main() -> None:
    """Run the contenders in turn, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--run", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps({"plain": plain, "ours": ours}[arguments.run](arguments.started)))
        return
    found: dict[str, list[list[float]]] = {"plain": [], "ours": []}
    for _ in range(arguments.repetitions):
        for contender, runs in found.items():
            runs.append(_measure(contender))
    facts = machine()
    print(
        f"digits, fedavg, one thread; {facts['processor']}, {facts['cores']} cores; {arguments.repetitions} repetitions in turn"
    )
    rows = {
        "first round done after, s": [[run[0] for run in runs] for runs in found.values()],
        f"{ROUNDS} rounds done after, s": [[run[-1] for run in runs] for runs in found.values()],
        "a steady round, s": [
            [statistics.median(b - a for a, b in itertools.pairwise(run)) for run in runs]
            for runs in found.values()
        ],
    }
    for name, (theirs, mine) in rows.items():
        print(
            f"{name:28} plain loop {_spread(theirs)}   fedali simulate {_spread(mine)}   "
            f"ratio {statistics.median(mine) / statistics.median(theirs):.2f}"
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} [{min(values):.3f} to {max(values):.3f}]"


if __name__ == "__main__":
    main()
