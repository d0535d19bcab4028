"""Where the time of a run goes: a flame graph to open in a browser, and a split by the rooms of this code.

A sampling profiler looks at the running thread some hundred times a second. It sees one thread, so the run has one
worker and everything happens in it: times of several workers overlap, and their sum says little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.cohort.site import CohortSite
from fedali.cohort.store import ClientStore
from fedali.errors import MissingExtraError
from fedali.methods import Method
from fedali.support.files import write_text
from fedali_server.flower.strategy import PersonalisedStrategy
from fedali_server.run.folder import RunFolder
from fedali_simulations import data as federation
from fedali_simulations import setup, study
from fedali_simulations.jobs import Report
from fedali_simulations.report.results import Results
from fedali_simulations.run import RoundWriter, run_job
from fedali_simulations.scenario import Scenario

if TYPE_CHECKING:
    from pyinstrument.frame import Frame
    from pyinstrument.session import Session

_INTERVAL = 0.005  # seconds between samples
_SAMPLES = 100_000  # more are thinned out: a browser has to show them
_DATA, _PICTURES, _REST = "data, model and engine", "tables and pictures", "everything else"
_ONCE = (_DATA, _PICTURES, _REST)  # not in rounds


@dataclass(frozen=True)
class Profile:
    """Where the time of a run went.

    Args:
        seconds: by room, all rounds together.
        rounds: how many there were.
        paths: of the flame graph (HTML) and of the same for https://www.speedscope.app (JSON).
    """

    seconds: dict[str, float]
    rounds: int
    paths: tuple[Path, Path]

    def __str__(self) -> str:
        """The split as lines of text, and where the files are."""
        once = {room: seconds for room, seconds in self.seconds.items() if room in _ONCE}
        rounds = {room: seconds for room, seconds in self.seconds.items() if room not in once}
        whole = sum(rounds.values())
        lines = [f"{self.rounds} rounds in one worker; a round took {whole / self.rounds:.3f} s:"]
        lines += [f"  {s / self.rounds:8.3f} s  {s / whole:6.1%}  {room}" for room, s in rounds.items()]
        lines += [f"  {seconds:8.3f} s  once    {room}" for room, seconds in once.items()]
        return "\n".join([*lines, *(f"profile: {path}" for path in self.paths)])


def first_job(scenario: Scenario) -> Scenario:
    """The scenario with its first method and first seed alone."""
    return scenario.model_copy(update={"methods": scenario.methods[:1], "seeds": 1})


def run(folder: Path, report: Report | None = None) -> tuple[Results, Profile]:
    """Do what is left to do in ``folder``, as ``study.run`` does, with one worker and under a profiler.

    Leaves ``profile.html`` and ``profile.speedscope.json`` in ``folder``. Raises ``MissingExtraError`` where
    pyinstrument is not installed.
    """
    profiler = make_profiler()
    with profiler:
        results = study.run(folder, workers=1, report=report)
    session = profiler.last_session
    line = results.scenario.methods[0]
    seconds = _split(session.root_frame(), _rooms(line.build()))
    return results, Profile(seconds, results.scenario.training.rounds, _write(session, folder))


def make_profiler() -> Any:
    """A sampling profiler; ``MissingExtraError`` where pyinstrument is not installed."""
    try:
        from pyinstrument import Profiler
    except ImportError:
        raise MissingExtraError("pyinstrument", "sim") from None
    return Profiler(interval=_INTERVAL, async_mode="disabled")


def _rooms(method: Method) -> dict[str, tuple[Callable[..., Any], ...]]:
    """Functions by room; time belongs to the innermost of them on the stack."""
    return {
        "local training": (CohortSite._train,),
        "tests of personal models": (CohortSite._test,),
        "tests of the server's model": (CohortSite.evaluate,),
        "alignment and the site's sums": (type(method).upload,),
        "aggregation at the server": (type(method).aggregate,),
        "messages, and the rest of a round": (PersonalisedStrategy.start,),
        "clients' records, metrics, checkpoint": (
            RoundWriter.__call__,
            ClientStore.remember,
            ClientStore.compose,
            ClientStore.checkpoint,
        ),
        "models: best and personal": (RunFolder.write_best, RunFolder.write_personal),
        _DATA: (setup.build_setup, federation.load_federation, run_job),
        _PICTURES: (study.run,),
    }


def _split(root: Frame | None, rooms: dict[str, tuple[Callable[..., Any], ...]]) -> dict[str, float]:
    """Seconds by room, in the order of ``rooms``."""
    homes = {_key(function): room for room, functions in rooms.items() for function in functions}
    spent = dict.fromkeys([*rooms, _REST], 0.0)
    waiting = [(root, _REST)] if root is not None else []
    while waiting:
        frame, room = waiting.pop()
        room = homes.get((frame.function, frame.file_path, frame.line_no), room)
        spent[room] += frame.time - sum(child.time for child in frame.children)
        waiting += [(child, room) for child in frame.children]
    return {room: seconds for room, seconds in spent.items() if seconds > 0}


def _key(function: Callable[..., Any]) -> tuple[str, str | None, int | None]:
    code = function.__code__
    return code.co_name, code.co_filename, code.co_firstlineno


def _write(session: Session, folder: Path) -> tuple[Path, Path]:
    from pyinstrument.renderers import HTMLRenderer, SpeedscopeRenderer

    if len(session.frame_records) > _SAMPLES:
        session = session.resample(session.duration / _SAMPLES * 2)
    paths = folder / "profile.html", folder / "profile.speedscope.json"
    write_text(paths[0], HTMLRenderer().render(session))
    write_text(paths[1], SpeedscopeRenderer(timeline=True, show_all=True).render(session))
    return paths
