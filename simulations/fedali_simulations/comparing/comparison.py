"""Methods against one of them: means over seeds with intervals, ranks, paired differences and what they are worth."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedali.errors import SettingsError, did_you_mean
from fedali_simulations.comparing.measures import Measure
from fedali_simulations.comparing.statistics import ALPHA, LEVEL, Mean, holm, signed_rank, t_mean
from fedali_simulations.scenario import Scenario

_EQUAL = 1e-9  # a client gains or loses by more
_P = ("p_wilcoxon", "p_t")


@dataclass(frozen=True)
class Ratio:
    """Test samples by training samples, of all clients and seeds: what the corrected t takes for the overlap of splits."""

    test: float
    train: float

    @property
    def value(self) -> float:
        """The ratio; NaN without training samples."""
        return self.test / self.train if self.train else math.nan


@dataclass(frozen=True)
class Comparison:
    """What ``compare_measures`` found.

    Args:
        scenario: what all methods had in common.
        folders: the runs.
        against: the method that the others are compared with.
        ratio: of test to training samples.
        measures: in the order of the table.
        rows: a row for each measure and method, see ``compare_measures``.
        notes: what a reader has to know of these runs.
    """

    scenario: Scenario
    folders: tuple[Path, ...]
    against: str
    ratio: Ratio
    measures: tuple[Measure, ...]
    rows: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(self.rows["method"]))

    @property
    def accuracies(self) -> list[Measure]:
        """Measures that have a block of their own in a table."""
        return [measure for measure in self.measures if measure.name == measure.about]

    @property
    def groups(self) -> list[list[Measure]]:
        """The others, by what they are about."""
        others = (measure for measure in self.measures if measure.name != measure.about)
        return [list(group) for _, group in itertools.groupby(others, lambda measure: measure.about)]

    @property
    def seeds(self) -> list[int]:
        """Those of every method."""
        return sorted({int(seed) for measure in self.measures for seed in measure.seeds.index})

    @property
    def clients(self) -> int:
        """How many different clients there are."""
        tables = [m.clients for m in self.measures if m.clients is not None]
        return max((table.index.get_level_values("client").nunique() for table in tables), default=0)

    def row(self, measure: str, method: str) -> dict[str, Any]:
        """One row by column."""
        rows = self.rows
        found = rows[(rows["measure"] == measure) & (rows["method"] == method)].to_dict("records")
        return {str(key): value for key, value in found[0].items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; NaN becomes null."""
        return {
            "scenario": self.scenario.name,
            "folders": [str(folder) for folder in self.folders],
            "against": self.against,
            "seeds": self.seeds,
            "clients": self.clients,
            "rounds": self.scenario.training.rounds,
            "level": LEVEL,
            "alpha": ALPHA,
            "test_samples": self.ratio.test,
            "train_samples": self.ratio.train,
            "test_by_train": None if math.isnan(self.ratio.value) else self.ratio.value,
            "notes": list(self.notes),
            "rows": json.loads(self.rows.to_json(orient="records", double_precision=15)),
        }


def compare_measures(
    measures: Sequence[Measure], methods: Sequence[str], against: str, ratio: float
) -> pd.DataFrame:
    """A row for each measure and method.

    ``mean`` over clients and seeds with its 95 % interval over seeds (``low``, ``high``; Student's t), ``seed_std``, ``seeds``; ``rank``:
    the mean over clients (over seeds, of a number of all clients together) of the method's place among all, 1 is best, those that
    are equal share their places.

    ``difference`` is the method's number less that of ``against``, paired by seed and client: with a 95 % interval and ``p_t`` over seeds, by the t
    corrected by ``ratio`` (``statistics.t_mean``). ``p_wilcoxon`` is over clients, each a block: the mean of its differences over
    seeds; ``gain``, ``same`` and ``lose`` count them. ``p_wilcoxon_holm`` and ``p_t_holm`` are adjusted for the number of methods, within a
    measure. ``differs``: every test there is stays below 0.05 so.
    """
    if against not in methods:
        raise SettingsError(f"no method {against!r} to compare with; {did_you_mean(against, methods)}")
    tables = []
    for measure in measures:
        ranks = _ranks(measure)
        rows = [_row(measure, method, against, ratio, ranks) for method in methods]
        for test in _P:
            for row, value in zip(rows, holm([row[test] for row in rows]), strict=True):
                row[f"{test}_holm"] = value
        for row in rows:
            row["differs"] = _differs(row, measure)
        tables += rows
    return pd.DataFrame(tables)


def _differs(row: dict[str, Any], measure: Measure) -> bool:
    wanted = _P if measure.clients is not None else _P[1:]
    return all(row[f"{test}_holm"] < ALPHA for test in wanted)  # NaN is not


def _row(
    measure: Measure, method: str, against: str, ratio: float, ranks: pd.Series[float]
) -> dict[str, Any]:
    seeds = measure.seeds[method].dropna()
    own = t_mean(seeds.to_numpy(np.float64))
    paired, blocks = Mean(math.nan, math.nan, math.nan), np.empty(0)
    if measure.tested and method != against:
        by_seed, blocks = _differences(measure, method, against)
        paired = t_mean(by_seed, ratio)
    better = blocks if measure.better == "more" else -blocks
    return {
        "measure": measure.name,
        "about": measure.about,
        "method": method,
        "better": measure.better,
        "unit": measure.unit,
        "mean": own.mean,
        "low": own.mean - own.half,
        "high": own.mean + own.half,
        "seed_std": float(seeds.std()) if len(seeds) > 1 else math.nan,
        "seeds": len(seeds),
        "rank": float(ranks.get(method, math.nan)),
        "difference": paired.mean,
        "difference_low": paired.mean - paired.half,
        "difference_high": paired.mean + paired.half,
        "clients": len(blocks),
        "gain": int(np.count_nonzero(better > _EQUAL)),
        "same": int(np.count_nonzero(np.abs(better) <= _EQUAL)),
        "lose": int(np.count_nonzero(better < -_EQUAL)),
        "p_wilcoxon": signed_rank(blocks),
        "p_t": paired.p,
    }


def _differences(
    measure: Measure, method: str, against: str
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Of two methods: by seed, and by client (none where a number is of all clients together)."""
    if measure.clients is None:
        return (measure.seeds[method] - measure.seeds[against]).to_numpy(np.float64), np.empty(0)
    both = (measure.clients[method] - measure.clients[against]).dropna()
    by_seed = measure.over_clients(both.to_frame())[0 if both.name is None else both.name]
    return by_seed.to_numpy(np.float64), both.groupby(level="client").mean().to_numpy(np.float64)


def _ranks(measure: Measure) -> pd.Series[float]:
    """Each method's mean place over blocks that know every method; methods without a number have none."""
    table = measure.seeds if measure.clients is None else measure.clients.groupby(level="client").mean()
    table = table.dropna(axis=1, how="all").dropna().round(10)
    places = table.rank(axis=1, method="average", ascending=measure.better == "less")
    return places.mean() if len(table) else pd.Series(dtype=np.float64)
