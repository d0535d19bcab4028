"""What a baseline leaves of a round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from fedali_server.run.folder import RunFolder
from fedali_simulations.metrics import MetricsFiles


def write_round(
    folder: RunFolder, round_: int, found: dict[str, list[float]], names: Sequence[str]
) -> dict[str, float]:
    """Write the metrics of a round, with the clients' ``names``; gives the mean of each column."""
    count = len(found["client"])
    clients = [names[int(client)] for client in found["client"]]
    MetricsFiles(folder.path).write_metrics(round_, {**found, "client": clients, "round": [round_] * count})
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan
