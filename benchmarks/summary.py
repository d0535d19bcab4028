"""Medians and spreads of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Spread:
        """Of at least one number."""
        known = list(numbers)
        return cls(statistics.median(known), min(known), max(known))

    def __str__(self) -> str:
        if self.low == self.high:
            return short(self.median)
        return f"{short(self.median)} [{short(self.low)} to {short(self.high)}]"


@dataclass(frozen=True)
class Line:
    """A contender on a workload; numbers of steady rounds, over all repetitions.

    Args:
        contender: its name.
        seconds: of a round.
        updates: client updates a second.
        samples: samples trained a second.
        cpu: processor seconds of a client update, of all processes together.
        gflops: GFLOP/s of a core: operations over processor seconds.
        share: of what a core can do.
        memory: peak bytes of all processes together, once caches are filled where there is more than one repetition.
        cold: seconds from the start of the process to the end of the first round, in the first repetition.
        warm: the same in later repetitions, when caches are filled; None with one repetition.
        loss: of the server's model at the end.
        parts: median seconds of a round by what they went to; empty where not known.
    """

    contender: str
    seconds: Spread
    updates: Spread
    samples: Spread
    cpu: Spread
    gflops: Spread
    share: Spread
    memory: Spread
    cold: float
    warm: Spread | None
    loss: Spread
    parts: dict[str, float]


def lines(results: Results, workload: str, *, training: bool = True) -> list[Line]:
    """Every contender that finished ``workload``, in the order of the runs."""
    runs = [r for r in results["runs"] if r["workload"] == workload and bool(r["epochs"]) == training]
    names = dict.fromkeys(run["contender"] for run in runs)
    return [_line(results, workload, [r for r in runs if r["contender"] == name]) for name in names]


def peak(results: Results, workload: str | None = None) -> Spread:
    """GFLOP/s of a large matrix product on one thread."""
    found = [p["alone"] for p in results["peaks"] if workload in (None, p["workload"])]
    return Spread.of(found)


def short(number: float) -> str:
    """Three digits, without an exponent where it can be.

    >>> short(0.12345), short(12.345), short(12345.6)
    ('0.123', '12.3', '12346')
    """
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.3g}"


def _line(results: Results, workload: str, runs: list[dict[str, Any]]) -> Line:
    facts = results["workloads"][workload]
    peaks = {(p["repetition"], p["workload"]): p["alone"] for p in results["peaks"]}
    rounds = [(run, round_) for run in runs for round_ in run["rounds"][1:]]
    clients = facts["clients"] if runs[0]["epochs"] else facts.get("idle_clients", facts["clients"])
    work = {run["epochs"]: facts["samples"] * run["epochs"] for run in runs}

    def gflops(run: dict[str, Any], round_: dict[str, float]) -> float:
        flops = work[run["epochs"]] * facts["flops_per_sample"] / 1e9
        return float(flops / max(round_["cpu_seconds"], 1e-9))

    later = [run for run in runs if run["repetition"] > 0]
    cold = [run["first_round_done"] for run in runs if run["repetition"] == 0]
    warm = [run["first_round_done"] for run in later]
    return Line(
        contender=runs[0]["contender"],
        seconds=Spread.of(r["seconds"] for _, r in rounds),
        updates=Spread.of(clients / r["seconds"] for _, r in rounds),
        samples=Spread.of(work[run["epochs"]] / r["seconds"] for run, r in rounds),
        cpu=Spread.of(r["cpu_seconds"] / clients for _, r in rounds),
        gflops=Spread.of(gflops(run, r) for run, r in rounds),
        share=Spread.of(gflops(run, r) / peaks[run["repetition"], workload] for run, r in rounds),
        memory=Spread.of(run["peak_memory"] for run in later or runs),
        cold=cold[0] if cold else warm[0],
        warm=Spread.of(warm) if warm else None,
        loss=Spread.of(run["final_loss"] for run in runs),
        parts=_parts(runs),
    )


def _parts(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of steady rounds by name; ``other`` is the rest."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run["breakdown"] is None:
            return {}
        for round_, parts in zip(run["rounds"][1:], run["breakdown"][1:], strict=True):
            for name, seconds in {**parts, "other": round_["seconds"] - sum(parts.values())}.items():
                found.setdefault(name, []).append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
