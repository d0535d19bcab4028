"""``python -m benchmarks.scale --million``: a million registered clients in one process, of whom a thousand report in each step of a buffer.

A client is on in its night, by a trace in a file. Samples are those of 10,000 clients in a memory-mapped file; client c has those of c modulo 10,000.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from benchmarks.engines import make_engine
from benchmarks.measure import RoundClock, memory, versions
from benchmarks.simulator import build_simulation
from benchmarks.workloads import BATCH_SIZE, LEARNING_RATE, SEED
from fedali.cohort.buffered.schedule import Buffered, Schedule
from fedali.cohort.sampling.availability import Trace
from fedali.data import ClientData, Federation, Normalisation
from fedali.engines.choose import resolve
from fedali.methods import SharedState, build_method
from fedali.models import build_model
from fedali.optimizers.rules import Adam
from fedali.recipe import Recipe

EPOCHS, HOURS = 2, 24
Item = TypeVar("Item")


class Made(Sequence[Item]):
    """Items that are made when they are asked for."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | Sequence[Item]:
        if isinstance(place, slice):
            return [self._make(each) for each in range(*place.indices(self._length))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self._make(place)


def write_trace(path: Path, clients: int) -> None:
    """Eight hours a client, beginning at any hour of the day, for a day and its next."""
    begins = np.random.default_rng(SEED).integers(0, HOURS, clients)
    with path.open("w") as stream:
        stream.write("client,from_hour,to_hour\n")
        for client, begin in enumerate(begins.tolist()):
            stream.writelines(
                f"client-{client},{max(0, start)},{start + 8}\n"
                for start in (begin - HOURS, begin, begin + HOURS)
                if start + 8 > 0
            )


def run_million(
    data: Path,
    scratch: Path,
    stored: int,
    samples: int,
    clients: int,
    reports: int,
    rounds: int,
    engine: str,
    workers: int,
) -> dict[str, Any]:
    """Buffered rounds of ``clients``, ``reports`` a step; ``data`` holds the samples of ``stored`` clients, ``samples`` each."""
    x, y = (np.load(data / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in ("x", "y"))
    shape, no_x, no_y = x.shape[1:], x[:0], y[:0]
    classes = int(y.max()) + 1
    model = build_model("cnn1d", shape, classes, seed=SEED, channels=(16, 32, 32), hidden=0)
    method = build_method("fedper", {})
    recipe = Recipe(model, method, Adam(LEARNING_RATE), shape, EPOCHS, BATCH_SIZE, 0.0)
    built = make_engine(engine, recipe, workers=workers)
    gc.collect()
    before, began = memory(os.getpid())["Anonymous"], time.perf_counter()

    def client(number: int) -> ClientData:
        where = slice(number % stored * samples, (number % stored + 1) * samples)
        return ClientData(f"client-{number}", x[where], y[where], no_x, no_y, no_x, no_y)

    same = Normalisation(np.zeros(1, np.float32), np.ones(1, np.float32))
    federation = Federation(
        "synthetic",
        Made(clients, client),  # type: ignore[arg-type]
        shape,
        tuple(map(str, range(classes))),
        Made(clients, lambda _: same),  # type: ignore[arg-type]
        (),
        "",
        "",
    )
    trace = Trace(data / "on.csv", Made(clients, lambda number: f"client-{number}"))
    settings = Buffered(reports, 2 * reports)
    schedule = Schedule(settings, SEED, np.arange(clients), np.full(clients, samples), trace)
    simulation = build_simulation(model, method, built, federation, scratch, seed=SEED, schedule=schedule)
    gc.collect()
    registered = time.perf_counter() - began
    idle = (memory(os.getpid())["Anonymous"] - before) / clients
    clock, found = RoundClock(), []

    def on_round(_: SharedState) -> None:
        clock.mark()
        seen = memory(os.getpid())
        parts = simulation.watch.take()
        states = len(schedule.versions)
        found.append({**parts, "rss": seen["Rss"], "anonymous": seen["Anonymous"], "states": states})
        clock.resume()

    clock.mark()
    simulation.run(rounds, on_round)
    return {
        "name": "million",
        "clients": clients,
        "trained_in_a_round": reports,
        "in_training": 2 * reports,
        "engine": resolve(engine),  # type: ignore[arg-type]
        "workers": workers,
        "seconds_to_register": registered,
        "bytes_per_idle_client": idle,
        "bytes_kept_per_trained_client": simulation.site.store.bytes_per_client,
        "rounds": [{**a, **b} for a, b in zip(clock.rounds(), found, strict=True)],
        "versions": versions("fedali", "flwr", "torch", "numpy"),
    }


def summary(case: dict[str, Any]) -> str:
    """A line for people, over the rounds after the first."""
    steady = case["rounds"][1:]
    overhead = [100 * (r["seconds"] - r["training"]) / r["training"] for r in steady]
    seconds = [r["seconds"] for r in steady]
    rss = [r["anonymous"] / 1e6 for r in case["rounds"]]
    return (
        f"{case['clients']:,} clients, {case['trained_in_a_round']:,} reports a step, engine {case['engine']}: "
        f"{np.median(seconds):.2f} s a step, overhead {np.median(overhead):.1f} % ({min(overhead):.1f} to {max(overhead):.1f}); "
        f"anonymous memory {rss[0]:.0f} MB after the first step, {rss[-1]:.0f} MB after the last; "
        f"{case['bytes_per_idle_client']:.0f} bytes a client that does not train; registered in {case['seconds_to_register']:.1f} s\n"
        + json.dumps([{k: round(v, 3) for k, v in r.items()} for r in case["rounds"]])
    )
