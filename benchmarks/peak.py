"""What a core can do: a large single-precision matrix product, on one thread alone and on all cores at once."""

from __future__ import annotations

import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import torch

_SIZE, _TIMES = 2048, 7


def gflops() -> float:
    """Median GFLOP/s of one thread."""
    a, b, product = (torch.randn(_SIZE, _SIZE) for _ in range(3))
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        torch.mm(a, b, out=product)
        seconds.append(time.perf_counter() - started)
    return 2 * _SIZE**3 / statistics.median(seconds) / 1e9


def main() -> None:
    """Print both as one line of JSON."""
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    alone = gflops()
    with ThreadPoolExecutor(cores) as pool:
        together = list(pool.map(lambda _: gflops(), range(cores)))
    print(json.dumps({"alone": alone, "together": statistics.mean(together)}))


if __name__ == "__main__":
    main()
