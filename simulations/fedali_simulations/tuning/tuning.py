"""A search in a folder: begun, continued, and what it found as a scenario."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedali.errors import CheckpointError, MissingExtraError, SettingsError
from fedali.support.files import running_alone, write_text
from fedali.support.names import file_name
from fedali.version import __version__
from fedali_simulations.data import check_facts, load, load_dataset
from fedali_simulations.jobs import Report
from fedali_simulations.report.tablefile import Columns
from fedali_simulations.scenario import MethodSettings, Scenario, load_scenario
from fedali_simulations.study import at_home
from fedali_simulations.template import to_toml
from fedali_simulations.tuning.search import MEASURES, Search, Trial, best_of, search
from fedali_simulations.tuning.space import with_range

FIRST_SEED = 1000  # far from those that anybody reports
_SCENARIO, _SEARCH, FOUND = "tuned.toml", "search.json", "found.toml"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        folder: where everything is.
        asked: the scenario, with the method as it was.
        wanted: what was searched.
        trials: in their order.
        found: the scenario with the method as it is best.
    """

    folder: Path
    asked: Scenario
    wanted: Search
    trials: tuple[Trial, ...]
    found: Scenario

    @property
    def best(self) -> Trial:
        """The first of the best trials."""
        return best_of(self.trials)

    def columns(self) -> Columns:
        """The trials as a table."""
        return {
            "trial": [trial.number for trial in self.trials],
            "value": [trial.value for trial in self.trials],
            "diverged": [int(trial.diverged) for trial in self.trials],
            **{key: [trial.settings[key] for trial in self.trials] for key in self.wanted.space},
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "folder": str(self.folder),
            "scenario": str(self.folder / FOUND),
            "method": self.asked.methods[0].title,
            "measure": self.wanted.measure,
            "seeds": list(self.wanted.seeds),
            "trials": len(self.trials),
            "value": self.best.value,
            "value_before": self.trials[0].value,
            "settings": self.best.settings,
        }


def begin(scenario: Scenario, wanted: Search, out: Path | None = None) -> Path:
    """Make the folder of a new search of the scenario's one method; faults in settings and data are found before that."""
    _check_extras()
    scenario = at_home(scenario)
    reported = range(scenario.seed, scenario.seed + scenario.seeds)
    if set(reported) & set(wanted.seeds):
        raise SettingsError(
            f"seeds {_listed(wanted.seeds)} are among those that the scenario reports ({_listed(reported)}): choose another --first-seed"
        )
    if wanted.measure not in MEASURES:
        raise SettingsError(f"--measure takes {', '.join(MEASURES)}, not {wanted.measure!r}")
    dataset, _ = load(_measured(scenario), wanted.seeds[0])
    for folder in [out] if out else _untaken(scenario):
        with running_alone(folder):
            if (folder / _SEARCH).exists() or (folder / "scenario.toml").exists():
                if out is None:
                    continue
                raise SettingsError(
                    f"{folder} holds a search or a run already: continue it with --resume, or choose another --out"
                )
            check_facts(folder, dataset)
            write_text(folder / _SCENARIO, to_toml(scenario))
            wanted.write(folder / _SEARCH)
        return folder
    raise AssertionError("there is always another name")


def read(folder: Path) -> tuple[Scenario, Search]:
    """What is searched in ``folder``; ``CheckpointError`` where nothing is."""
    wanted = Search.read(folder / _SEARCH)
    if not (folder / _SCENARIO).exists():
        raise CheckpointError(f"{folder} holds no search: there is no {_SCENARIO} in it")
    return load_scenario(str(folder / _SCENARIO), stored=True), wanted


def go_on(folder: Path, *, workers: int, report: Report) -> Tuned:
    """Do what is left to do in ``folder``, and write what was found; the same as of a search that was never interrupted."""
    _check_extras()
    asked, wanted = read(folder)
    with running_alone(folder):
        check_facts(folder, load_dataset(asked, asked.seed), note=False)
        trials = tuple(search(_measured(asked), wanted, folder, workers=workers, report=report))
        found = with_range(asked, asked.methods[0], best_of(trials).settings)
        tuned = Tuned(folder, asked, wanted, trials, found)
        rows = tuned.columns()
        lines = [",".join(rows), *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True))]
        write_text(folder / "trials.csv", "\n".join(lines) + "\n")
        write_text(folder / FOUND, found_toml(tuned))
    return tuned


def announced(scenario: Scenario, wanted: Search, titles: Sequence[str]) -> Scenario:
    """The scenario with a line for each trial, by which its progress is shown."""
    lines = tuple(MethodSettings(name=scenario.methods[0].name, label=title) for title in titles)
    return scenario.model_copy(update={"methods": lines, "seeds": len(wanted.seeds)})


def found_toml(tuned: Tuned) -> str:
    """The found scenario as a file, under comments that say how it was found."""
    wanted, best, line = tuned.wanted, tuned.best, tuned.asked.methods[0]
    of = "the mean of personalisation and generalisation" if wanted.measure == "both" else wanted.measure
    comments = [
        f"Settings of {line.title}, found by fedali tune (FedAli {__version__}, Optuna {wanted.optuna}) in {len(tuned.trials)} trials.",
        f"Trial {best.number} has the best accuracy on validation data, {of}: {best.value:.4f}; the settings before have {tuned.trials[0].value:.4f}.",
        f"Seeds {_listed(wanted.seeds)} were used for this and are not to be reported. No test data were read.",
        *(f"{key} = {value:g}, searched from {wanted.space[key]}" for key, value in best.settings.items()),
    ]
    return "".join(f"# {comment}\n" for comment in comments) + "\n" + to_toml(tuned.found)


def _check_extras() -> None:
    """Raise ``MissingExtraError`` for what a search needs and is not here."""
    for module, extra in (("torch", "sim"), ("flwr", "sim"), ("optuna", "tune")):
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)


def _measured(scenario: Scenario) -> Scenario:
    """On validation data, without what a search has no use for."""
    evaluation = scenario.evaluation.model_copy(
        update={
            "on": "validation",
            "transductive": False,
            "calibration": False,
            "unseen_clients": 0,
            "unseen_samples": (),
        }
    )
    training = scenario.training.model_copy(update={"keep_models": "none"})
    return scenario.model_copy(update={"evaluation": evaluation, "training": training})


def _untaken(scenario: Scenario) -> Iterator[Path]:
    name = file_name(f"{scenario.name}-{scenario.methods[0].title}")
    stamp = f"tune-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        folder = Path("runs") / (stamp if number == 1 else f"{stamp}-{number}")
        if not folder.exists():
            yield folder


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
