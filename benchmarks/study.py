"""The tables of docs/results.md from runs: nothing is typed by hand.

    python -m benchmarks.study                                    # run what is missing, print the tables
    python -m benchmarks.study --write docs/results.md            # and put them between their marks in the page
    python -m benchmarks.study --quick                            # two seeds and few methods: minutes
    python -m benchmarks.study digits digits-shards --out runs/study

A study is a run folder of ``fedali compare`` under ``--out``: killed at any moment it goes on where it was. Seeds are 10 to 14: settings were
chosen on others.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedali.support.files import write_text
from fedali_simulations import study as studies
from fedali_simulations.baselines import BASELINES
from fedali_simulations.comparing import numbers
from fedali_simulations.comparing.asked import asked_for
from fedali_simulations.comparing.comparison import Comparison
from fedali_simulations.comparing.files import write_comparison
from fedali_simulations.comparing.runs import compare_runs
from fedali_simulations.environment import log_to_stderr

FIRST_SEED = 10  # 0 to 4, 20 to 24 and 1000 up were looked at while settings were chosen
_FEW = "fedali,fedavg+gate,fedavg,fedntd,knn-per,local,forest-pooled"  # a run takes minutes
_ALL = (
    "fedali,fedavg+gate,fedavg,fedntd,moon,feddbe,fedali-paper,knn-per,local,l2only,fedavg+between,fedprox,fedrep,ditto,fedproto,fedrod,fedbabu,fedbn,fedala,apfl,pfedme,"
    "fedpac-align,fedper,fedavg-more,fedavg-tuned,pooled,forest-pooled,forest"
)
_MOST = "fedali,fedavg+gate,fedavg,fedntd,moon,feddbe,fedali-paper,knn-per,fedrod,local,pooled,forest-pooled"
_SHORT = "fedali,fedavg+gate,fedavg,fedali-paper,local"
_ENDS = "fedali,fedavg,fedntd,knn-per,local,forest-pooled"
_NEWCOMERS = "fedali,fedavg,fedavg+between,knn-per,fedavg-more"
_HELD_OUT = ("evaluation.unseen_clients=5", "evaluation.unseen_samples=[0, 5, 20]")
_BOTH = ("personalisation", "generalisation")
_LINES = 8  # of the README's table, and
_ALWAYS = ("fedavg", "fedali-paper")
README = Path("README.md")
_LAST = ("training.keep_models=none", "evaluation.transductive=false")


@dataclass(frozen=True)
class Study:
    """A table: its name is that of its marks in the page and of its folder."""

    name: str
    scenario: str
    changes: tuple[str, ...]
    methods: str
    rounds: int
    seeds: int = 5

    @property
    def command(self) -> str:
        """What makes it."""
        words = " ".join(f"--set {shlex.quote(change)}" for change in self.settings)
        return f"fedali compare {self.scenario} --methods {self.methods} --seeds {self.seeds} {words}"

    @property
    def settings(self) -> list[str]:
        """What differs from the scenario; everyone's data is tested after the last round."""
        every = f"evaluation.generalisation_every={self.rounds}"
        return [f"seed={FIRST_SEED}", f"training.rounds={self.rounds}", every, *_LAST, *self.changes]


STUDIES = (
    Study("digits", "digits", (), _ALL, 15),
    Study("digits-shards", "digits", ("partition.kind=shards",), _MOST, 15),
    Study("digits-newcomers", "digits", _HELD_OUT, _NEWCOMERS, 15),
    Study("motionsense-time", "motionsense", ("split.order=time",), _FEW, 20),
    Study("motionsense-recording", "motionsense", (), _ENDS, 14),
)


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="STUDY", help=", ".join(study.name for study in STUDIES))
    parser.add_argument("--quick", action="store_true", help="two seeds and few methods")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the run folders are")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between their marks")
    parser.add_argument("--workers", type=int)
    words = parser.parse_args()
    unknown = set(words.names) - {study.name for study in STUDIES}
    if unknown or (words.quick and words.write):
        parser.error(f"no study {', '.join(unknown)}" if unknown else "--quick is for looking at")
    out = words.out or Path("runs") / ("study-quick" if words.quick else "study")
    log_to_stderr()
    for study in STUDIES:
        if not words.names or study.name in words.names:
            if words.quick:
                study = dataclasses.replace(study, methods=_SHORT, seeds=2)
            comparison = run(study, out / study.name, words.workers)
            text = "\n".join((newcomers if study.changes == _HELD_OUT else table)(comparison, study))
            sys.stdout.write(f"## {study.name}\n\n{text}\n\n")
            sys.stdout.flush()
            if words.write:
                put(words.write, study.name, text)
                put(README, study.name, "\n".join(short(comparison)))


def run(study: Study, folder: Path, workers: int | None) -> Comparison:
    """Run what is missing of a study; compare its methods with the first."""
    if not folder.exists():
        asked = asked_for([study.scenario], study.methods, study.seeds, study.settings, None)
        studies.prepare(asked, folder)
    studies.run(studies.existing(folder), workers=workers)
    comparison = compare_runs([folder], None, {})
    write_comparison(comparison, folder)
    return comparison


def table(comparison: Comparison, study: Study) -> Iterator[str]:
    """A row for each method: accuracies, differences from the first with their p, worst decile, calibration, costs; then the gates."""
    yield f"`{study.command}`: {comparison.clients} clients, {study.rounds} rounds; {machine()}."
    yield ""
    yield "| method | own data | difference (p clients, seeds) | everyone's data | difference (p clients, seeds) | worst 10 %, own | ECE, own / everyone's | kB up | CPU s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for method in comparison.methods:
        own, everyone = ("personalisation", "generalisation")
        cells = [f"`{method}`"]
        for accuracy in (own, everyone):
            row = comparison.row(accuracy, method)
            cells += [numbers.mean(row), _against(row)]
        cells.append(_one(comparison, f"{own} worst decile", method))
        cells.append(
            f"{_one(comparison, f'{own} ECE', method)} / {_one(comparison, f'{everyone} ECE', method)}"
        )
        cells += [_one(comparison, name, method) for name in ("bytes up", "compute")]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from _gates(comparison)


def newcomers(comparison: Comparison, study: Study) -> Iterator[str]:
    """A row for each method: accuracy of clients that were held out, by how many labels they had."""
    moments = [
        str(name) for name in dict.fromkeys(comparison.rows["measure"]) if str(name).startswith("unseen ")
    ]
    moments = [name for name in moments if not name.endswith("macro-F1")]
    yield f"`{study.command}`: {comparison.clients} clients, {study.rounds} rounds; {machine()}."
    yield ""
    yield f"| method | {' | '.join(name.removeprefix('unseen ') for name in moments)} |"
    yield f"|---|{'---|' * len(moments)}"
    for method in comparison.methods:
        cells = [numbers.mean(comparison.row(name, method)) for name in moments]
        yield f"| `{method}` | {' | '.join(cells)} |"


def machine() -> str:
    """What it was measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{len(names) or 1} x {names[0] if names else platform.machine()}, Python {platform.python_version()}"
    )


def short(comparison: Comparison) -> Iterator[str]:
    """The README's table: the best lines by both accuracies together, ``local`` and what is trained on everything."""
    yield "| method | own data | worst 10 % | everyone's data | difference |"
    yield "|---|---|---|---|---|"
    rows = {m: [comparison.row(name, m) for name in _BOTH] for m in comparison.methods}
    order = sorted(rows, key=lambda method: -sum(row["mean"] for row in rows[method]))
    trained_alone = [method for method in order if method in ("local", *BASELINES)]
    federated = [method for method in order if method not in trained_alone]
    for method in [*federated[:_LINES], *(m for m in federated[_LINES:] if m in _ALWAYS), *trained_alone]:
        own, everyone = rows[method]
        worst = _one(comparison, "personalisation worst decile", method)
        difference = numbers.difference(everyone) + numbers.mark(everyone)
        yield f"| `{method}` | {numbers.mean(own)} | {worst} | {numbers.mean(everyone)} | {difference} |"


def put(page: Path, name: str, text: str) -> None:
    """Put the table between its marks, where the page has them."""
    written = page.read_text(encoding="utf-8")
    marks = re.compile(f"(<!-- study {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    write_text(page, marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", written, count=1))


def _gates(comparison: Comparison) -> Iterator[str]:
    known = set(comparison.rows["measure"])
    if "gate AUC" not in known:
        return
    for method in comparison.methods:
        if comparison.row("gate AUC", method)["seeds"]:
            agreement, auc, perfect, lost = (
                _one(comparison, f"gate {name}", method) for name in ("agreement", "AUC", "perfect", "lost")
            )
            yield (
                f"The gate of `{method}` sends {agreement} % of everyone's samples right (AUC {auc}); one that knows whose each is would "
                f"reach {perfect} on everyone's data, {lost} more."
            )


def _against(row: dict[str, object]) -> str:
    text = numbers.difference(row)
    if text == numbers.NONE:
        return text
    p = ", ".join(numbers.p_value(float(row[f"{test}_holm"])) for test in ("p_wilcoxon", "p_t"))  # type: ignore[arg-type]
    return f"{text}{numbers.mark(row)} ({p})"


def _one(comparison: Comparison, measure: str, method: str) -> str:
    known: Sequence[str] = comparison.rows["measure"].tolist()
    return (
        numbers.number(comparison.row(measure, method), "mean", sign=False)
        if measure in known
        else numbers.NONE
    )


if __name__ == "__main__":
    main()
