"""The search: Optuna proposes settings, runs on validation data say what they are worth.

All that Optuna knows follows from the seed and from the values so far: a search that was killed asks again for the trials it had, finds their
results in its folder, and goes on as if nothing had been. Trials come in generations of a fixed size, whatever the number of workers.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.errors import CheckpointError, SettingsError
from fedali.support.files import write_text
from fedali_simulations.jobs import Job, Report
from fedali_simulations.scenario import Scenario
from fedali_simulations.study import collect_jobs, run_jobs
from fedali_simulations.tuning.space import Range, rounded, with_range

if TYPE_CHECKING:
    import optuna

GENERATION = 4  # trials that are drawn before the first of them is known
_RANDOM = 8  # trials before the model of what is good
MEASURES = {
    "both": ("personalisation", "generalisation"),
    "personalisation": ("personalisation",),
    "generalisation": ("generalisation",),
    "global": ("global",),
}
DIVERGED = 0.0  # an accuracy


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Args:
        budget: number of trials; the first has the scenario's own settings, those of them that are in ``space``.
        seeds: of the runs of each trial.
        measure: of ``MEASURES``; the mean of the accuracies that it names.
        space: by dotted key.
        optuna: its version.
    """

    budget: int
    seeds: tuple[int, ...]
    measure: str
    space: dict[str, Range]
    optuna: str = ""

    @classmethod
    def read(cls, path: Path) -> Search:
        """What ``write`` wrote."""
        try:
            found = json.loads(path.read_text("utf-8"))
            space = {key: Range(**ends) for key, ends in found.pop("space").items()}
            return cls(**{**found, "seeds": tuple(found["seeds"]), "space": space})
        except FileNotFoundError:
            raise CheckpointError(f"{path.parent} holds no search: there is no {path.name} in it") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error

    def write(self, path: Path) -> None:
        """As JSON, with the version of Optuna."""
        write_text(path, json.dumps({**asdict(self), "optuna": version("optuna")}, indent=1))


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, by dotted key, and their value: a mean accuracy on validation data; ``diverged``: it is none."""

    number: int
    settings: dict[str, float]
    value: float
    diverged: bool = False


def title_of(number: int) -> str:
    """What a trial is called."""
    return f"trial-{number:03d}"


def search(scenario: Scenario, wanted: Search, folder: Path, *, workers: int, report: Report) -> list[Trial]:
    """Every trial, in order; those whose runs are complete in ``folder`` are not run again.

    Args:
        scenario: with one line, measured on validation data.
        wanted: what is searched.
        folder: for the runs, and ``trials.json``.
        workers: processes or threads; they change no result.
        report: called after each round.
    """
    main = scenario.task.build().main
    if not main.share or main.better == "less":
        raise SettingsError(
            f"a search is for what is 0 to 1 and better the more it is, and task {scenario.task.name!r} is told by {main.title}"
        )
    study, before = _study(scenario, wanted), _before(folder)
    done: list[Trial] = []
    while len(done) < wanted.budget:
        count = min(GENERATION, wanted.budget - len(done))
        asked = [study.ask() for _ in range(count)]
        drawn = [
            {key: _suggest(trial, key, range_) for key, range_ in wanted.space.items()} for trial in asked
        ]
        for number, settings in enumerate(drawn, len(done)):
            if number < len(before) and before[number] != settings:
                raise CheckpointError(
                    f"{folder} was begun with Optuna {wanted.optuna}, and this is {version('optuna')}, which draws other trials: "
                    f"install that one, or start anew"
                )
        done += _run(scenario, wanted, folder, len(done), drawn, workers, report)
        for trial, found in zip(asked, done[-count:], strict=True):
            study.tell(trial, found.value)
        write_text(folder / "trials.json", json.dumps([asdict(trial) for trial in done], indent=1))
    if all(trial.diverged for trial in done):
        raise SettingsError(
            f"every trial of {folder} diverged: lower training.learning_rate, or search elsewhere"
        )
    return done


def _study(scenario: Scenario, wanted: Search) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=wanted.seeds[0], n_startup_trials=min(_RANDOM, max(1, wanted.budget // 2)), constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(_own(scenario, wanted.space))
    return study


def _own(scenario: Scenario, space: Mapping[str, Range]) -> dict[str, float]:
    """The scenario's own settings, those of them that are in the range that is searched."""
    (line,) = scenario.methods
    rooms: dict[str, Any] = {
        "training": scenario.training_for(line),
        "alp": scenario.alp_for(line),
        "options": line.build(),
    }
    own = {}
    for key, range_ in space.items():
        room, _, name = key.partition(".")
        value = getattr(rooms[room], name)
        if isinstance(value, int | float) and range_.low <= value <= range_.high:
            own[key] = value
    return own


def _suggest(trial: optuna.Trial, key: str, range_: Range) -> float:
    if range_.whole:
        return trial.suggest_int(key, int(range_.low), int(range_.high))
    value = rounded(trial.suggest_float(key, range_.low, range_.high, log=range_.log))
    return min(max(value, range_.low), range_.high)


def _before(folder: Path) -> list[dict[str, float]]:
    """Settings of the trials of an interrupted search."""
    path = folder / "trials.json"
    if not path.exists():
        return []
    try:
        return [dict(trial["settings"]) for trial in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _run(
    scenario: Scenario,
    wanted: Search,
    folder: Path,
    first: int,
    drawn: Sequence[Mapping[str, float]],
    workers: int,
    report: Report,
) -> list[Trial]:
    """One generation of trials."""
    lines = [
        with_range(scenario, scenario.methods[0], settings)
        .methods[0]
        .model_copy(update={"label": title_of(number)})
        for number, settings in enumerate(drawn, first)
    ]
    together = scenario.model_copy(update={"methods": tuple(lines)})
    jobs = [
        Job(together, line, seed, folder / line.title / f"seed-{seed}", may_diverge=True)
        for seed in wanted.seeds
        for line in lines
    ]
    run_jobs(jobs, workers, None, report)
    found = []
    for number, (line, settings) in enumerate(zip(lines, drawn, strict=True), first):
        mine = [job for job in jobs if job.line is line]
        value = value_of(together, wanted, folder, mine)
        found.append(Trial(number, dict(settings), DIVERGED if value is None else value, value is None))
    return found


def value_of(scenario: Scenario, wanted: Search, folder: Path, jobs: Sequence[Job]) -> float | None:
    """The mean over seeds and accuracies of complete jobs of one trial; None where training diverged."""
    for job in jobs:
        try:
            if "diverged" in json.loads((job.folder / "done.json").read_text("utf-8")):
                return None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{job.folder} is not complete: {error}") from error
    main = scenario.task.build().main
    table = collect_jobs(scenario, folder, jobs).table.set_index("measure")[main.name]
    values = [float(table[name]) for name in MEASURES[wanted.measure]]
    if any(value != value for value in values):
        raise SettingsError(
            f"{scenario.methods[0].name} has no {wanted.measure} accuracy: choose another --measure"
        )
    return statistics.fmean(values)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The first of the best."""
    return max(trials, key=lambda trial: (trial.value, -trial.number))
