"""docs/peers.md, written from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.checkout import ADDRESS
from benchmarks.peers.observed import EARLY

Run = dict[str, Any]
EQUAL = 1e-9  # in double precision, after the early rounds
_HEAD = """# Beside an independent implementation

This page is written by `make peers`; the numbers behind it are in `benchmarks/results/peers.json`. PFLlib ({address}, commit {commit})
trains each method that both have with its own servers and clients, on the splits, the model, the initial weights and the settings of
`fedali simulate digits`: 20 clients, 15 rounds of 2 epochs, batch 32, Adam 3e-3 that begins anew in each round (rows with SGD: 0.05, `pfedme` 0.02, without momentum).
`make peers` gets it by git into `.peers/`; `FEDALI_PEERS=FOLDER` names a checkout that is there. None of its code is in FedAli. Seeds {seeds}. Clients answer with
their models as trained in the last round, before they hear of the next; own: accuracy on a client's own test data, everyone's: on that of all
clients, in %, means over clients, then over seeds. Settings are ours, not tuned, and nothing was chosen by these numbers."""

_CHANGED = """## What was changed in the peer

In every method, beside what the tables say: the last batch of an epoch counts (PFLlib drops it, and a client with less than a batch never trains); Adam, from zero moments in
each round, stands for its plain descent; clients are tested after their local training in the last round by our metrics (PFLlib tests
FedAvg's before it, and reports the best round on test data). What trains, what is sent and how it is averaged is PFLlib's own unless it is
said. `benchmarks/peers/clients.py` and `servers.py` are all that is put before its classes."""


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    runs: list[Run] = results["runs"]
    by_case = [(case, [run for run in runs if run["method"] == case.title]) for case in CASES]
    rows = [(case, found) for case, found in by_case if found]
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    head = _HEAD.format(address=ADDRESS, commit=results["commit"][:7], seeds=seeds)
    where = results["environment"]
    packages = ", ".join(f"{name} {where['packages'][name]}" for name in ("numpy", "torch"))
    machine = (
        f"## Machine\n\n{where['processor']}, {where['cores']} cores, Python {where['python']}; {packages}."
    )
    return "\n\n".join([head, _same(rows), _own(rows), _CHANGED, machine]) + "\n"


def is_equal(runs: Iterable[Run]) -> bool:
    """Whether parameters of all clients are, to rounding, before training has enlarged it."""
    return all(max(run["apart"][str(round_)]) < EQUAL for run in runs for round_ in EARLY)


def _same(rows: list[tuple[Case, list[Run]]]) -> str:
    equal = [case.title for case, runs in rows if is_equal(runs)]
    others = [case.title for case, runs in rows if not is_equal(runs)]
    said = (
        f"The same in both, to rounding: {len(equal)} of {len(rows)} rows"
        + (f"; not {', '.join(others)}" if others else "")
        + "."
    )
    lines = [
        "## The same batches",
        "",
        "PFLlib takes samples in the order that our engines take them in ([wire.md](wire.md#the-order-of-samples)). Both in double precision, so that an update that is "
        "defined otherwise shows, and rounding does not: the largest difference of a parameter over all clients, of the model that is sent and of the one that answers. After round 3 "
        "all terms are at work, those too that need a round before; later, training enlarges rounding, most where models stay apart.",
        "",
        said,
        "",
        "| ours | PFLlib | after round 1 | after round 3 | after the last | own / everyone's, ours | PFLlib's | what was changed in the peer, *what differs* |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, runs in rows:
        rounds = sorted(runs[0]["apart"], key=int)
        apart = " | ".join(f"{max(max(run['apart'][round_]) for run in runs):.0e}" for round_ in rounds)
        notes = [case.changed, f"*{case.differs}*" if case.differs else ""]
        lines.append(
            f"| {case.title} | {case.server} | {apart} | {_pair(runs, 'ours')} | {_pair(runs, 'theirs')} "
            f"| {'; '.join(note for note in notes if note) or '–'} |"
        )
    return "\n".join(lines)


def _own(rows: list[tuple[Case, list[Run]]]) -> str:
    lines = [
        "## Each in its own order",
        "",
        "In single precision, ours as a simulation has it, PFLlib's batches as its `DataLoader` shuffles them; mean ± standard deviation over seeds. The difference is "
        "PFLlib's less ours, of the same seed.",
        "",
        "| ours | own, ours | own, PFLlib | difference | everyone's, ours | everyone's, PFLlib | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    moved: list[list[float]] = [[], []]
    for case, runs in rows:
        cells = []
        for place in (0, 1):
            mine, theirs = ([100 * run[name][place] for run in runs] for name in ("as_simulated", "shuffled"))
            apart = [b - a for a, b in zip(mine, theirs, strict=True)]
            cells += [_spread(mine), _spread(theirs), _spread(apart, sign="+")]
            if is_equal(runs):
                moved[place] += apart
        lines.append(f"| {case.title} | {' | '.join(cells)} |")
    if moved[0]:
        own, everyone = (
            f"{statistics.fmean(each):+.1f} (root of the mean square {statistics.fmean(d * d for d in each) ** 0.5:.1f})"
            for each in moved
        )
        lines += [
            "",
            f"Of rows that are the same above, what differs here is the order of samples alone: on average {own} points in own accuracy, {everyone} in "
            "everyone's. Rows share the orders of a seed, so that these are few draws. Differences of that size between two methods of one seed say nothing.",
        ]
    return "\n".join(lines)


def _pair(runs: list[Run], name: str) -> str:
    own, everyone = (100 * statistics.fmean(run[name][place] for run in runs) for place in (0, 1))
    return f"{own:.1f} / {everyone:.1f}"


def _spread(values: list[float], sign: str = "") -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{spread}"
