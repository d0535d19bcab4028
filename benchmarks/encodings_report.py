"""docs/encodings.md, written from what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.stats import t as student

Run = dict[str, Any]
BASE = "float32"

_HEAD = """# What an update's encoding costs

This page is written by `make study-encodings`; the numbers behind it are in `benchmarks/results/encodings.json`.

A device sends its update in the encoding that the task asks for ([the wire](wire.md)): float32 sends parameters and prototypes as
they are, float16 and int8 send the parameters' difference to what the device got, and the prototypes as they are. What an
encoding loses of an update is added to the device's next (error feedback); `int8 without feedback` leaves that out.

Here the clients of a scenario train as in a simulation, all in every round, and every upload is encoded, serialised, decoded and checked
by the code that devices and gateways use. All encodings of a seed share clients, splits, initial model, order of samples
and rounds. What the server sends is float32 throughout. Nothing was chosen by these numbers: they are those
of the last round, on test data.

- personalisation: a client's own model on its own test data, after the last round's training; mean over clients.
- global: the server's model after the last round on each client's test data; mean over clients.
- Accuracies are means over seeds ± standard deviation over seeds, in %. Differences to float32 are of the same seed, in points; in
  brackets the 95 % interval of their mean (Student's t): what it does not exclude may still be there.
- sent: bytes of a client's serialised update, with four metrics; received: of the shared state. Of each client in each round.
- a round: megabytes (10^6) of all clients together, both ways, without what TLS and HTTP/2 add.
- error: what an update arrives wrong by, over what it changes (Euclidean norms of the parameters' part), mean over clients and
  rounds. With feedback it contains what the round before still owed.
"""


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    runs: list[Run] = results["runs"]
    parts = [_HEAD, _summary(runs)]
    tables = dict.fromkeys(
        (run["scenario"], run["method"]) for run in sorted(runs, key=lambda r: r["scenario"])
    )
    parts += [_section([r for r in runs if (r["scenario"], r["method"]) == table]) for table in tables]
    where = results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items() if version)
    parts.append(
        f"## Machine\n\n{where['processor']}, {where['cores']} cores, Python {where['python']}; {packages}."
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _summary(runs: Sequence[Run]) -> str:
    """What holds in every table."""
    lines = ["## In short", ""]
    found = {((run["scenario"], run["method"]), run["variant"], run["seed"]): run for run in runs}
    for variant in dict.fromkeys(run["variant"] for run in runs if run["variant"] != BASE):
        means, ends, shares = [], [], []
        for table in dict.fromkeys(key[0] for key in found):
            pairs = [
                (one, found[table, BASE, seed])
                for (of, name, seed), one in found.items()
                if (of, name) == (table, variant) and (table, BASE, seed) in found
            ]
            shares += [one["sent"] / base["sent"] for one, base in pairs]
            for name in ("personalisation", "global"):
                differences = [100 * (one[name] - base[name]) for one, base in pairs]
                half = _half(differences)
                means.append(statistics.fmean(differences))
                ends.append((means[-1] - half, means[-1] + half))
        excluded = sum(low > 0 or high < 0 for low, high in ends)
        lines.append(
            f"- {variant}: {statistics.fmean(shares):.1%} of the bytes up. Mean differences to float32 from {min(means):+.2f} to "
            f"{max(means):+.2f} points; the intervals reach from {min(low for low, _ in ends):+.2f} to "
            f"{max(high for _, high in ends):+.2f}, and {excluded} of {len(ends)} exclude 0."
        )
    lines += [
        "",
        "No cost of an encoding was found, so nor was a gain of feedback: over rounds as few as these, updates this far above int8's steps",
        "need none. Feedback is a guarantee for long runs and small updates: what arrives adds up to what was trained, within one rounding.",
    ]
    return "\n".join(lines)


def _section(runs: Sequence[Run]) -> str:
    first = runs[0]
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    complete = [
        seed
        for seed in sorted({run["seed"] for run in runs})
        if {run["variant"] for run in runs if run["seed"] == seed} == set(variants)
    ]
    found = {(run["variant"], run["seed"]): run for run in runs}
    table = [
        "| encoding | personalisation | difference | global | difference | error | sent | of float32's | a round |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for variant in variants:
        rows = [found[variant, seed] for seed in complete]
        base = [found[BASE, seed] for seed in complete]
        cells = [variant]
        for name in ("personalisation", "global"):
            values = [100 * run[name] for run in rows]
            differences = [100 * (run[name] - other[name]) for run, other in zip(rows, base, strict=True)]
            cells += [_spread(values), "–" if variant == BASE else _interval(differences)]
        error = statistics.fmean(run["lost"] for run in rows)
        sent = statistics.fmean(run["sent"] for run in rows)
        share = sent / statistics.fmean(run["sent"] for run in base)
        cells += ["0" if variant == BASE else f"{error:.2%}", f"{sent:,.0f}", f"{share:.1%}"]
        cells += [f"{first['clients'] * (sent + first['received']) / 1e6:.2f} MB"]
        table.append(f"| {' | '.join(cells)} |")
    return f"""## {first["scenario"]}, {first["method"]}

{first["clients"]} clients, {first["rounds"]} rounds, {len(complete)} seeds; {first["theta"]:,} parameters and {first["prototypes"]:,} numbers of prototypes;
received {first["received"]:,} bytes.

""" + "\n".join(table)


def _spread(values: Sequence[float]) -> str:
    return (
        f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
        if len(values) > 1
        else f"{values[0]:.2f}"
    )


def _interval(differences: Sequence[float]) -> str:
    mean, half = statistics.fmean(differences), _half(differences)
    return f"{mean:+.2f} [{mean - half:+.2f} to {mean + half:+.2f}]"


def _half(differences: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean; nan for one difference."""
    count = len(differences)
    if count < 2:
        return math.nan
    deviation: float = statistics.stdev(differences)
    return float(student.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
