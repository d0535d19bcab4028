"""Round 0: what all devices' training data add up to, channel by channel, before anybody trains and without anybody's samples.

A folder of its own:

    untrained.fedali  what data have to fit: a bundle without normalisation, signed as every bundle
    claims.json       how many samples devices said they have before, see ``fedali_server.run.claims``
    attempt.json      how often nobody could answer; each attempt is a round of another name, since sites recall what was
    statistics.json   what came out, and a report of each device; written last

A round is done once by each site, which answers again with the same bits, and sums are exact: whoever is killed, what comes out is
the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from fedali.bundle.file import read_bundle
from fedali.cohort.weights import Weights, only
from fedali.data.normalisation import ChannelSums, add_up
from fedali.errors import CheckpointError, FedaliError
from fedali.support.files import flush_folder, write_text
from fedali_server.flower import relay_records
from fedali_server.flower.connection import LinkLostError
from fedali_server.flower.site_grid import SiteGrid
from fedali_server.flower.superlink import running
from fedali_server.run.claims import Claims, wait_for_devices
from fedali_server.run.federated import PAUSE, SLACK, Operator, RunSettings, config_of, wanted_of

Reports = Sequence[Mapping[str, Any]]

log = structlog.get_logger("fedali.server")


@dataclass(frozen=True, eq=False)
class Statistics:
    """What came out of round 0: all ``sums`` together, and what sites say of each of their devices, by its number."""

    sums: ChannelSums
    reports: Reports

    def __str__(self) -> str:
        done = [report for report in self.reports if report["state"] == "done"]
        samples = sum(report["samples"] for report in done)
        return f"round 0: {len(done)} of {len(self.reports)} devices, {samples} samples in all"


class RoundZero:
    """Round 0 of a study, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = "untrained.fedali", "model.fedali"  # the second of earlier versions
        self.bundle = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
        self._done, self._attempt = folder / "statistics.json", folder / "attempt.json"

    @property
    def done(self) -> bool:
        """Whether it is complete."""
        return self._done.exists()

    def gather(
        self,
        settings: RunSettings,
        operator: Operator,
        meanwhile: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Statistics:
        """Do the round, or recall what came out: ``bundle`` has to be there by then.

        ``say`` is told who is awaited; ``meanwhile`` is called several times a second; what it raises ends this. Raises ``FedaliError`` when sites do not come, or
        with each device's reason when none could answer; called again it asks again.
        """
        if not self.done:
            read_bundle(self.bundle, [operator.trusted_key])
            attempt = int(_read(self._attempt)["attempt"]) if self._attempt.exists() else 1
            name = settings.name if attempt == 1 else f"{settings.name}-{attempt}"
            parts, reports = self._ask(replace(settings, name=name), operator, meanwhile, say)
            if not parts:
                write_text(self._attempt, json.dumps({"attempt": attempt + 1}))
                (self.folder / "claims.json").unlink(missing_ok=True)
                flush_folder(self.folder)
                why = (
                    "; ".join(f"{report['device']} {_why(report)}" for report in reports)
                    or "no site answered"
                )
                raise FedaliError(
                    f"round 0: no device's data could be added up, so there is no normalisation. {why}"
                )
            for report in reports:
                if report["state"] != "done":
                    log.warning("not in the statistics", device=report["device"], why=_why(report))
            self._write(add_up(parts), reports)
        facts = _read(self._done)
        try:
            numbers = (np.array(facts[name], np.float64) for name in ("sums", "squares"))
            return Statistics(ChannelSums(int(facts["count"]), *numbers), list(facts["reports"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"cannot read {self._done}: {error}") from None

    def _ask(
        self,
        settings: RunSettings,
        operator: Operator,
        meanwhile: Callable[[], None],
        say: Callable[[str], None],
    ) -> tuple[list[ChannelSums], Reports]:
        """All sites' sums, and their reports. A SuperLink that restarts is waited for."""
        wanted = wanted_of(self.bundle, settings, operator)
        lost_since: float | None = None
        while True:
            try:
                with running(operator.link, config_of(settings, wanted.sha256)) as grid:
                    sites = SiteGrid(grid, wanted, meanwhile=meanwhile)
                    claims = Claims(self.folder / "claims.json", settings.largest_weight)
                    devices = wait_for_devices(sites, settings, say, claims=not claims.begun)
                    if not claims.begun:
                        claims.begin(devices)
                    return _collect(sites, claims.weights(), settings.seconds + SLACK)
            except LinkLostError as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > settings.patience:
                    raise
                meanwhile()
                log.warning("the server does not answer, trying again", why=str(error))
                time.sleep(PAUSE)

    def _write(self, sums: ChannelSums, reports: Reports) -> None:
        """JSON has float64's numbers to the last bit."""
        plain = {"count": sums.count, "sums": sums.sums.tolist(), "squares": sums.squares.tolist()}
        write_text(self._done, json.dumps({**plain, "reports": list(reports)}, indent=1))
        flush_folder(self.folder)


def _collect(sites: SiteGrid, weights: Weights, timeout: float) -> tuple[list[ChannelSums], Reports]:
    questions = [
        relay_records.ask_statistics(node, only(weights, sites.devices_of(node)))
        for node in sites.get_node_ids()
    ]
    parts, reports = [], []
    for reply in sites.send_and_receive(questions, timeout=timeout):
        try:
            if reply.has_error():
                raise FedaliError(reply.error.reason)
            sums, told = relay_records.read_statistics(reply)
        except FedaliError as error:
            log.warning(
                "a site's statistics are missing",
                site=sites.names.get(reply.metadata.src_node_id),
                why=str(error),
            )
            continue
        if sums is not None:
            parts.append(sums)
        reports += told
    return parts, sorted(reports, key=lambda report: int(report["number"]))


def _why(report: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (report["state"], report["reason"])))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
