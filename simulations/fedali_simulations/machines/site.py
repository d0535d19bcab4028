"""A simulation whose clients are on other machines: a site's side.

A site holds one part of the federation, whatever run comes: the server's settings say which data, model and method, and the
site loads its clients and trains them with an engine of its own. Settings are values, checked as those of a file are; no
code is taken from the server.

What its clients keep between rounds is in the site's folder, for each run under the run's name:

    <study>/<method>/seed-<n>/clients.f32, clients.json   the records, see ``fedali.cohort.store``
    <study>/<method>/seed-<n>/00003.safetensors           which records hold after round 3

A round is trained from the table of the round before, and writes its own. The one before is kept until the next round
arrives, which says that the server has its checkpoint of this one. So whoever is killed, the server can ask for the round
after its checkpoint once more, and gets the same bits.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from safetensors.numpy import save

from fedali.cohort.contract import RoundSettings, SiteReply
from fedali.cohort.store import Table
from fedali.cohort.tensorfile import read_tensors
from fedali.engines.choose import EngineName, resolve
from fedali.errors import CheckpointError, FedaliError, SettingsError
from fedali.methods import SharedState, build_method
from fedali.support.files import flush_folder, reporting, write_bytes
from fedali.support.names import file_name
from fedali.tasks import build_task
from fedali_server.flower.client_app import make_client_app
from fedali_simulations.baselines import BASELINES
from fedali_simulations.data import SOURCES
from fedali_simulations.machines import questions
from fedali_simulations.machines.remote_sites import is_name
from fedali_simulations.scenario import Scenario, load_scenario
from fedali_simulations.setup import build_setup


class SitePart:
    """One part of the federations of all runs that come.

    Args:
        number: of the part, 1 to ``parts``.
        parts: of how many.
        folder: for what clients keep; one process at a time may use it.
        engine: over the scenario's.
        source: the path of the data on this machine, or a function's name, for scenarios with data of their own.
        workers: threads or processes of the engine.

    Raises ``FedaliError`` when another process uses the folder.
    """

    def __init__(
        self,
        number: int,
        parts: int,
        folder: Path,
        *,
        engine: EngineName | None = None,
        source: str | None = None,
        workers: int = 1,
    ) -> None:
        self.number, self.parts, self.folder = number, parts, folder
        self.engine, self.source, self.workers = engine, source, workers
        weakref.finalize(self, os.close, _lock(folder))
        self._run: tuple[Mapping[str, Any], _PartOfRun] | None = None

    def app(self) -> ClientApp:
        """What answers the server."""
        app = make_client_app(self._part_of_run)

        @app.query()
        def query(message: Message, context: Context) -> Message:
            run = self._part_of_run(context)
            if message.content.config_records["ask"]["what"] == "hello":
                content = questions.introduction(self.number, self.parts, run.setup.federation)
            else:
                content = questions.answer(message, run.site)
            return Message(content, reply_to=message)

        return app

    def _part_of_run(self, context: Context) -> _PartOfRun:
        """The run that ``context`` speaks of; the last one is kept, others are read again from the folder."""
        config = context.run_config
        if self._run is None or self._run[0] != config:
            self._run = None  # its data leave memory before others are loaded
            self._run = config, self._begin(config)
        return self._run[1]

    def _begin(self, config: Mapping[str, Any]) -> _PartOfRun:
        try:
            study, line, seed = str(config["study"]), int(config["line"]), int(config["seed"])
            settings = json.loads(config["scenario"])
            if not (is_name(study) and line >= 0 and seed >= 0 and isinstance(settings, dict)):
                raise ValueError  # a string would name a file of this machine
            _check_methods(settings)
            scenario = load_scenario(settings)
            method = scenario.methods[line]
        except (KeyError, IndexError, TypeError, ValueError):
            raise FedaliError("this run is no simulation of FedAli's") from None
        if scenario.sites != self.parts:
            raise SettingsError(
                f"the run has {scenario.sites} sites, this is part {self.number} of {self.parts}: "
                f"give --sites {self.parts}"
            )
        folder = self.folder / study / file_name(method.title) / f"seed-{seed}"
        return _PartOfRun(self._own(scenario), line, seed, folder, self)

    def _own(self, scenario: Scenario) -> Scenario:
        """The scenario with this machine's engine and path of the data."""
        changes: dict[str, Any] = {}
        if self.engine is not None:
            changes["training"] = scenario.training.model_copy(update={"engine": self.engine})
        if scenario.data.source not in SOURCES:
            if self.source is None:
                raise SettingsError(
                    f"part {self.number}/{self.parts} does not know where its data are: start it with --data PATH"
                )
            changes["data"] = scenario.data.model_copy(update={"source": self.source, "options": {}})
        return scenario.model_copy(update=changes)


class _PartOfRun:
    """Implements ``fedali.cohort.contract.Site``: a cohort site, and a table on disk after each round."""

    def __init__(self, scenario: Scenario, line: int, seed: int, folder: Path, part: SitePart) -> None:
        self._folder, self._name = folder, f"part {part.number}/{part.parts}"
        self._engine = resolve(scenario.training.engine)
        self.setup = build_setup(
            scenario,
            scenario.methods[line],
            seed,
            workers=part.workers,
            clients=folder / "clients.f32",
            only=part.number - 1,
        )
        self.site = self.setup.sites[0]
        self._round: int | None = None  # whose records the store holds

    def train(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """One round, from what clients kept of the one before."""
        setup, before = self.setup, settings.round - 1
        if self._round != before:
            setup.restore(self._read(before))
        self._round = None  # until the round is complete
        self._forget_all_but(before)
        reply = self.site.train(settings, shared)
        self._write(settings.round, setup.checkpoint())
        self._round = settings.round
        return reply

    def evaluate(self, settings: RoundSettings, shared: SharedState) -> SiteReply:
        """The server's model on each client's test data."""
        return self.site.evaluate(settings, shared)

    def _read(self, round_: int) -> Table:
        path = self._path(round_)
        keeps = self.setup.store.sizes or self.setup.sampler is not None
        if round_ == 0 or not (keeps or path.exists()):
            return {}
        if not path.exists():
            raise CheckpointError(
                f"{self._name} has nothing of round {round_} of this run in {self._folder}: bring its folder back, "
                "or start the run anew"
            )
        table, facts = read_tensors(path)
        if facts.get("engine") != self._engine:
            raise CheckpointError(
                f"{self._name} has trained this run with engine {facts.get('engine')}, not {self._engine}: "
                f"start it with --engine {facts.get('engine')}"
            )
        return table

    def _write(self, round_: int, table: Table) -> None:
        facts = json.dumps({"round": str(round_), "engine": self._engine})
        write_bytes(self._path(round_), save(dict(table), {"fedali": facts}))
        flush_folder(self._folder)

    def _forget_all_but(self, round_: int) -> None:
        """Remove tables whose records the next round may overwrite, and those of rounds that are trained again."""
        if self._folder.exists():
            for path in self._folder.glob("*.safetensors"):
                if path != self._path(round_):
                    path.unlink()
            flush_folder(self._folder)

    def _path(self, round_: int) -> Path:
        return self._folder / f"{round_:05d}.safetensors"


def _check_methods(settings: Mapping[str, Any]) -> None:
    """Raise ``SettingsError`` for a method or task from outside FedAli: a server does not say which code is run here."""
    task = settings.get("task", "")
    name = task.get("name", "") if isinstance(task, Mapping) else task
    if name:
        build_task(str(name), doors=False)
    given = settings.get("methods", ())
    for line in [given] if isinstance(given, str | Mapping) else given:
        name = line["name"] if isinstance(line, Mapping) else line
        if name not in BASELINES:
            build_method(str(name), doors=False)


def _lock(folder: Path) -> int:
    """A file that stays locked while it is open."""
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise FedaliError(f"another site uses {folder}: end it, or give this one another --folder") from None
    return descriptor
