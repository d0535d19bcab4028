"""Synthetic clients: ragged as in MotionSense, class-dependent, in files that every contender reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workloads import SEED, Workload

MEAN, SMALLEST, LARGEST = 200, 40, 640  # samples of a client


@dataclass(frozen=True)
class Clients:
    """Samples x [n, *shape] float32 and labels y [n] of each client."""

    x: list[npt.NDArray[Any]]
    y: list[npt.NDArray[np.int64]]

    @property
    def samples(self) -> int:
        """Of all clients together."""
        return sum(len(y) for y in self.y)


def draw_sizes(clients: int) -> npt.NDArray[np.int64]:
    """How many samples each client has: lognormal around ``MEAN``, clipped."""
    spread = 0.6
    sizes = np.random.default_rng([SEED, 1]).lognormal(math.log(MEAN) - spread**2 / 2, spread, clients)
    return np.clip(sizes, SMALLEST, LARGEST).astype(np.int64)


def write_clients(workload: Workload, clients: int, folder: Path) -> None:
    """Write samples, labels and sizes of ``clients`` clients as .npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, sizes = np.random.default_rng([SEED, 2]), draw_sizes(clients)
    y = rng.integers(0, workload.classes, sizes.sum())
    centres = rng.standard_normal((workload.classes, *workload.shape), np.float32)
    x = rng.standard_normal((len(y), *workload.shape), np.float32) + centres[y]
    for name, array in (("x", x), ("y", y.astype(np.int64)), ("sizes", sizes)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read_clients(folder: Path) -> Clients:
    """What ``write_clients`` wrote, in memory."""
    ends = np.cumsum(np.load(folder / "sizes.npy"))[:-1]
    return Clients(np.split(np.load(folder / "x.npy"), ends), np.split(np.load(folder / "y.npy"), ends))
