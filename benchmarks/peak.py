"""What a core can do: a large single-precision matrix product, on one thread alone and on all cores at once.

Torch's own product is MKL's on x86; oneDNN's, which torch carries for convolutions, is measured beside it on one thread.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_SIZE, _TIMES = 2048, 7


def gflops() -> float:
    """Median GFLOP/s of one thread, by ``torch.mm``."""
    a, b, product = (torch.randn(_SIZE, _SIZE) for _ in range(3))
    return _median(lambda: torch.mm(a, b, out=product))


def onednn_gflops() -> float:
    """Median GFLOP/s of one thread, by oneDNN."""
    a, b = (torch.randn(_SIZE, _SIZE) for _ in range(2))
    return _median(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))


def _median(product: Callable[[], torch.Tensor]) -> float:
    product()
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return 2 * _SIZE**3 / statistics.median(seconds) / 1e9


def main() -> None:
    """Print all as one line of JSON."""
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    alone, onednn = gflops(), onednn_gflops()
    with ThreadPoolExecutor(cores) as pool:
        together = list(pool.map(lambda _: gflops(), range(cores)))
    print(json.dumps({"alone": alone, "together": statistics.mean(together), "onednn": onednn}))


if __name__ == "__main__":
    main()
