"""What is seen over the rounds alone: what clients forget, and what it takes to reach an accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from fedali.errors import SettingsError, did_you_mean
from fedali_simulations.comparing.measures import FORGETTING, TARGET, Measure, over_clients, pivot, weights_of
from fedali_simulations.report.results import MEASURES, Results

_ACCURACIES = ("validation", *MEASURES)
_FORGOTTEN = {"own": "personalisation", "all": "generalisation"}


def forgetting(results: Results) -> Iterator[Measure]:
    """By how much a client's best accuracy of all rounds is above that of its last, on its own data and on everyone's.

    0 where the last is the best; none of a client that was tested in one round alone.
    """
    rows, methods = results.clients, list(dict.fromkeys(results.clients["method"]))
    for title, name in _FORGOTTEN.items():
        if name not in rows:
            continue
        by = rows.dropna(subset=[name]).sort_values("round").groupby(["method", "seed", "client"])[name]
        best = by.max() if results.task.main.better == "more" else by.min()
        drop = (best - by.last()).abs().where(by.size() > 1).rename("drop").reset_index()
        table = pivot(drop, "drop", methods)
        if table.notna().to_numpy().any():
            yield Measure(
                *(
                    f"{FORGETTING} {title}",
                    FORGETTING,
                    "less",
                    "share" if results.task.main.share else "index",
                ),
                *(over_clients(table, None), table),
            )


def to_targets(results: Results, costs: pd.DataFrame, targets: Mapping[str, float]) -> Iterator[Measure]:
    """What each method and seed takes to reach an accuracy: rounds, and of all clients together bytes and processor seconds.

    It is reached in the first round that measures it in which its mean over clients is at least that; NaN where none is.

    Args:
        results: with the metrics of all rounds.
        costs: of a client in a round, see ``fedali_simulations.comparing.costs``.
        targets: 0..1, by the name of an accuracy, ``validation`` too.

    Raises ``SettingsError`` for an accuracy that there is not.
    """
    rows, methods = results.clients, list(dict.fromkeys(results.clients["method"]))
    main = results.task.main
    if targets and (not main.share or main.better == "less"):
        raise SettingsError(f"--target is for what is 0 to 1; these runs are told by {main.title}")
    each = {(str(row["method"]), int(row["seed"])): row for row in costs.to_dict("records")}
    for name, target in targets.items():
        ending = results.task.beside[0].ending if results.task.beside else ""
        if name not in rows or f"{name}{ending}" not in rows:
            known = [str(c).removesuffix(ending) for c in rows if str(c).endswith(ending)]
            raise SettingsError(
                f"--target {name}: no method here has that accuracy; {did_you_mean(name, known)}"
            )
        about = f"{TARGET} {name} {target:g}"
        found: dict[str, dict[tuple[str, int], float]] = {"rounds": {}, "bytes": {}, "compute": {}}
        for key, mine in _runs(rows):
            round_ = _first(mine, name, target)
            trained = mine["train_loss"].notna() & (mine["round"] <= round_)  # none where it is not reached
            count = float(trained.sum()) or np.nan
            spent = each.get(key, {})
            down, up, compute = (float(spent.get(n, np.nan)) for n in ("bytes down", "bytes up", "compute"))
            found["rounds"][key] = round_
            found["bytes"][key] = count * (down + up)
            found["compute"][key] = count * compute
        for title, unit in (("rounds", "rounds"), ("bytes", "megabytes"), ("compute", "seconds")):
            numbers = pd.Series(found[title]).unstack(0).reindex(columns=methods)
            numbers.index.name, numbers.columns.name = "seed", "method"
            if title == "rounds" or numbers.notna().to_numpy().any():
                yield Measure(f"{about} {title}", about, "less", unit, numbers, tested=False)  # type: ignore[arg-type]


def _first(rows: pd.DataFrame, name: str, target: float) -> float:
    """The round of one method and seed in which the mean over clients reaches the target."""
    known = rows.dropna(subset=[name])
    for round_ in sorted(set(known["round"].tolist())):
        mine = known[known["round"] == round_]
        if float(np.average(mine[name], weights=weights_of(name, mine))) >= target:
            return float(round_)
    return np.nan


def _runs(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """The rows of each method and seed."""
    for method in dict.fromkeys(rows["method"].tolist()):
        of_method = rows[rows["method"] == method]
        for seed in sorted(set(of_method["seed"].tolist())):
            yield (str(method), int(seed)), of_method[of_method["seed"] == seed]


def read_targets(given: Sequence[str]) -> dict[str, float]:
    """Targets as ``--target`` takes them: ``NAME=VALUE``, 0 to 1.

    >>> read_targets(["personalisation=0.9"])
    {'personalisation': 0.9}
    """
    targets = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not 0 < number <= 1:
            raise SettingsError(
                f"--target takes NAME=VALUE, an accuracy above 0 and up to 1, not {text!r}; for example --target personalisation=0.9"
            )
        name = name.strip()
        if name.removesuffix("_transductive") not in _ACCURACIES:
            raise SettingsError(f"--target {name}: no such accuracy; {did_you_mean(name, _ACCURACIES)}")
        targets[name] = number
    return targets
