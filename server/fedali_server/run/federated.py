"""A training over real sites and devices: the server's side of a run, from a bundle to the last round.

The strategy is that of simulations; what is different is that sites come and go, that a round has a deadline and a quorum, and
that this process may be killed at any time: ``run_federation`` on the same folder goes on after the last complete round.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from fedali.bundle.file import Bundle, read_bundle
from fedali.bundle.keys import PublicKey
from fedali.cohort.weights import only
from fedali.errors import BundleError, CheckpointError, SettingsError
from fedali.methods import Layouts, Method, SharedState, build_method
from fedali.wire.messages import LARGEST_STEP, RUN_NAME
from fedali.wire.tensors import Encoding
from fedali_server.flower import records
from fedali_server.flower.connection import LinkLostError
from fedali_server.flower.link import Link
from fedali_server.flower.site_grid import SiteGrid, Wanted
from fedali_server.flower.strategy import PersonalisedStrategy, RoundResult
from fedali_server.flower.superlink import running
from fedali_server.run.claims import Claims, wait_for_devices
from fedali_server.run.folder import Checkpoint, RunFolder

SLACK = 30.0  # seconds that a site's reply may come after its round has closed
LARGEST_WEIGHT = 1e6  # times the median
PAUSE = 2.0  # seconds between attempts to reach a SuperLink that went away

log = structlog.get_logger("fedali.server")


@dataclass(frozen=True)
class RunSettings:
    """What a training asks of sites and devices.

    Args:
        name: of the run: lower-case letters, digits and dashes; no other run on these sites has it.
        rounds: to do.
        epochs: of local training in a round.
        seed: of the order of samples.
        encoding: of the numbers that devices send: float32, float16 or int8.
        seconds: that a round may take.
        quorum: share of a site's devices, 0 to 1; once so many have answered, the others have ``grace_seconds``. 0: all that are there; one that
            is away has ``grace_seconds`` from when it was last heard of, and none when it missed the round before.
        grace_seconds: see ``quorum``.
        largest_step: of a client's parameters minus the round's, in norms of the round's; an update that is farther is refused, and
            one with prototypes ten times as long as the round's longest. 0: no bounds.
        largest_weight: times what the median device has, and times what it said before, that a device may weigh, whatever it says; 0: any.
        largest_samples: that a client may say it has, which are its weight in the sum; an update that says more is refused. 0: no bound.
        sites: that have to be there for a round to begin.
        patience: seconds to wait for them.
        empty_rounds: rounds in a row that may pass without any update.
        evaluate_every: rounds between evaluations of the server's model on the devices; the last round always has one.
        stop_after: rounds without a better mean validation accuracy of the devices after which the run ends; 0: never.

    Raises ``SettingsError`` for values that make no sense.
    """

    name: str
    rounds: int
    epochs: int = 1
    seed: int = 0
    encoding: str = "float32"
    seconds: float = 600.0
    quorum: float = 1.0
    grace_seconds: float = 30.0
    largest_step: float = 1.0
    largest_samples: int = 0
    largest_weight: float = 10.0
    sites: int = 1
    patience: float = 600.0
    empty_rounds: int = 3
    evaluate_every: int = 1
    stop_after: int = 0

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.name):
            raise SettingsError(
                f"{self.name!r} is no name for a run: use lower-case letters, digits and dashes, 64 at most"
            )
        if self.encoding not in [encoding.name.lower() for encoding in Encoding]:
            raise SettingsError(f"encoding is {self.encoding!r}; it has to be float32, float16 or int8")
        least = {"rounds": 1, "epochs": 1, "seed": 0, "sites": 1, "empty_rounds": 0, "evaluate_every": 1}
        least |= {"largest_samples": 0, "stop_after": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise SettingsError(f"{name} is {getattr(self, name)}; it has to be at least {value}")
        for name in ("seconds", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; it has to be a positive number")
        for name in ("grace_seconds", "largest_step"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; it has to be 0 or more")
        if self.largest_step > LARGEST_STEP:
            raise SettingsError(f"largest_step is {self.largest_step}; it has to be 0 to {LARGEST_STEP:g}")
        if not 0 <= self.quorum <= 1:
            raise SettingsError(
                f"quorum is {self.quorum}; it has to be above 0, and 1 at most; 0 for who is there"
            )
        if self.largest_weight and not 1 <= self.largest_weight <= LARGEST_WEIGHT:
            raise SettingsError(
                f"largest_weight is {self.largest_weight}; it has to be 1 to {LARGEST_WEIGHT:g}, or 0 for any weight"
            )


@dataclass(frozen=True)
class RunProgress:
    """Where a run is.

    Args:
        round: the last complete one.
        rounds: to do.
        sites: that are there.
        accuracy: mean personalisation over the devices of the last round; NaN without.
        reports: of that round's devices.
        seconds: it took.
    """

    round: int
    rounds: int
    sites: tuple[str, ...] = ()
    accuracy: float = math.nan
    reports: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0


Report = Callable[[RunProgress], None]


@dataclass(frozen=True)
class Operator:
    """What a run needs besides its settings.

    Args:
        federation: its name.
        link: to the SuperLink.
        trusted_key: of the bundles that devices take.
        revocations: latest signed list of certificates not to be trusted: list and signature.
        sites: names of the sites of the federation; empty for any.
    """

    federation: str
    link: Link
    trusted_key: PublicKey
    revocations: tuple[bytes, bytes] | None = None
    sites: tuple[str, ...] = field(default=())


OVER_DEVICES = "devices of a federation report accuracy and macro-F1 alone; simulate it, or export a bundle for single devices"


def start_run(folder: RunFolder, bundle: Path, settings: RunSettings, operator: Operator) -> None:
    """Make the folder of a run; ``BundleError`` for a bundle that devices would refuse, ``SettingsError`` for rounds that train nothing."""
    manifest = read_bundle(bundle, [operator.trusted_key]).manifest
    if manifest.targets.kind != "classes":
        raise BundleError(f"{bundle}: it learns {manifest.targets.kind}, no classes: {OVER_DEVICES}")
    manifest.schedule.check_rounds(settings.rounds, "Run as many, or export the bundle with another schedule")
    folder.create(bundle.read_bytes(), asdict(settings))


def settings_of(folder: RunFolder) -> RunSettings:
    """The settings a run was started with."""
    try:
        return RunSettings(
            **{"largest_weight": 0.0, **folder.settings()}
        )  # those of 0.1.0 have no such bound
    except TypeError as error:
        raise CheckpointError(
            f"{folder.path / 'run.json'} is of another version of FedAli: {error}"
        ) from None


def run_federation(
    folder: RunFolder,
    operator: Operator,
    report: Report = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Do the rounds that are left; the run is complete when this returns.

    ``report`` is told of each change, ``say`` of what a person may want to do something about, in a line, ``meanwhile`` is called several times a second; what they raise ends the run, which can be
    taken up again. A SuperLink that restarts is waited for. Raises ``FedaliError`` when it stays away, when sites do not come, or when too many
    rounds in a row pass without an update.
    """
    settings = settings_of(folder)
    if folder.done:
        return
    bundle = read_bundle(folder.bundle, [operator.trusted_key])
    run = _Run(folder, settings, bundle, operator, report, meanwhile, say)
    lost_since: float | None = None
    while not folder.done:
        before = run.checkpoint.round
        try:
            run.go_on()
        except LinkLostError as error:
            if run.checkpoint.round > before or lost_since is None:
                lost_since = time.monotonic()
            if time.monotonic() - lost_since > settings.patience:
                raise
            meanwhile()
            log.warning("the server does not answer, trying again", why=str(error))
            time.sleep(PAUSE)


def wanted_of(bundle: Path, settings: RunSettings, operator: Operator) -> Wanted:
    """What sites have to be and to hold for a run of the bundle in a file."""
    data = bundle.read_bytes()
    sha256 = hashlib.sha256(data).digest()
    known = operator.revocations, operator.sites
    return Wanted(operator.federation, data, sha256, *known, settings.sites, settings.patience)


def config_of(settings: RunSettings, sha256: bytes) -> dict[str, Any]:
    """What all rounds of a run have in common, as ``fedali_server.site.relay.DeviceRun`` reads it."""
    return {
        "run": settings.name,
        "bundle": sha256.hex(),
        "encoding": int(Encoding[settings.encoding.upper()]),
        **{name: getattr(settings, name) for name in ("epochs", "seed", "largest_samples")},
        **{
            name: float(getattr(settings, name))
            for name in ("seconds", "quorum", "grace_seconds", "largest_step")
        },
    }


class _Run:
    """A run in this process, between two kills."""

    def __init__(
        self,
        folder: RunFolder,
        settings: RunSettings,
        bundle: Bundle,
        operator: Operator,
        report: Report,
        meanwhile: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._meanwhile, self._say = meanwhile, say
        self._folder, self._settings, self._operator, self._report = folder, settings, operator, report
        self._wanted = wanted_of(folder.bundle, settings, operator)
        manifest = bundle.manifest
        self._method: Method = build_method(manifest.method.name, manifest.method.options)
        self._layouts = Layouts(manifest.layouts.parameters, manifest.layouts.prototypes)
        initial = bundle.state()
        shared = SharedState(initial["shared_theta"], initial["shared_prototypes"])
        self.checkpoint = folder.read_checkpoint() or Checkpoint(0, shared)
        self._claims = Claims(folder.path / "claims.json", settings.largest_weight)
        for facts in folder.rounds(self.checkpoint.round):
            self._claims.note(facts["reports"])
        self._sites: list[str] = []
        self._began = time.monotonic()

    def go_on(self) -> None:
        """Rounds until the last, over one connection."""
        settings = self._settings
        self._tell(RunProgress(self.checkpoint.round, settings.rounds))
        if not self._ended:
            with running(self._operator.link, config_of(settings, self._wanted.sha256)) as grid:
                sites = SiteGrid(grid, self._wanted, self._changed, self._meanwhile)
                devices = wait_for_devices(sites, settings, self._say, claims=not self._claims.begun)
                if not self._claims.begun:
                    self._claims.begin(devices)
                strategy = PersonalisedStrategy(
                    self._method,
                    self._layouts,
                    on_round=self._done,
                    generalisation_every=settings.evaluate_every,
                    empty_rounds=settings.empty_rounds,
                    weights=lambda node: only(self._claims.weights(), sites.devices_of(node)),
                    ended=lambda: self._ended,
                )
                self._began = time.monotonic()
                strategy.start(
                    sites,
                    records.from_shared(self.checkpoint.shared),
                    settings.rounds,
                    timeout=settings.seconds + SLACK,
                    first_round=self.checkpoint.round + 1,
                )
        self._folder.finish({"rounds": self.checkpoint.round, "best_round": self.checkpoint.best_round})
        self._status("done", [])

    @property
    def _ended(self) -> bool:
        """Whether the last round was done: of all, or since validation was better for the last time."""
        checkpoint, settings = self.checkpoint, self._settings
        return checkpoint.round >= settings.rounds or checkpoint.is_stale(settings.stop_after)

    def _done(self, result: RoundResult) -> None:
        """Write what a round leaves; the checkpoint last."""
        seconds = time.monotonic() - self._began
        result = self._claims.tests(result)
        facts = {
            "round": result.round,
            "seconds": seconds,
            "train": result.train,
            "evaluate": result.evaluate,
            "reports": result.reports,
        }
        self._folder.write_round(result.round, facts)
        self._claims.note(result.reports)
        said = {**result.evaluate, **result.train}  # of what clients answer, whenever they knew it
        before, score = self.checkpoint, _mean(said.get("validation", []))
        better = score > before.best_score
        best = (result.round, score) if better else (before.best_round, before.best_score)
        if result.round == self._settings.rounds and not best[0]:  # nobody has validation data
            best = (result.round, -1.0)
        self.checkpoint = Checkpoint(result.round, records.to_shared(result.arrays), {}, *best)
        if self.checkpoint.best_round == result.round:
            self._folder.write_best(self.checkpoint.shared, (), result.round)
        self._folder.write_checkpoint(self.checkpoint)
        accuracy = _mean(said.get("personalisation", []))
        progress = RunProgress(
            result.round, self._settings.rounds, tuple(self._sites), accuracy, result.reports, seconds
        )
        self._tell(progress)
        self._began = time.monotonic()

    def _changed(self, sites: list[str]) -> None:
        self._sites = sites
        self._tell(RunProgress(self.checkpoint.round, self._settings.rounds, tuple(sites)))

    def _tell(self, progress: RunProgress) -> None:
        self._status("running", progress.reports)
        self._report(progress)

    def _status(self, state: str, reports: Sequence[dict[str, Any]]) -> None:
        known = reports or self._folder.status().get("reports", [])
        facts = {
            "run": self._settings.name,
            "state": state,
            "round": self.checkpoint.round,
            "rounds": self._settings.rounds,
            "sites": self._sites,
            "reports": list(known),
            "written": time.time(),
        }
        self._folder.write_status(facts)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else -1.0
