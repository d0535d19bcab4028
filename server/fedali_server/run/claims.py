"""How many samples devices say they have: what a run knows of it before each round, and how much each may weigh for it.

Before round 1 it is what devices told their gateways when they enrolled, kept in ``claims.json`` of the run's folder; then what they said with their
latest updates, which is in ``rounds/``. So a run that is killed and resumed bounds each round as before.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.cohort.weights import Weights, weights_of
from fedali.errors import CheckpointError
from fedali.support.files import flush_folder, write_text

if TYPE_CHECKING:
    from fedali_server.flower.relay_records import DeviceState
    from fedali_server.flower.site_grid import SiteGrid
    from fedali_server.flower.strategy import RoundResult
    from fedali_server.run.federated import RunSettings

Say = Callable[[str], None]

_SHARE = 0.5  # of the devices: so many make a median
_SHOWN = 8  # names in a line
_LOOKS = 0.25, 2.0  # seconds between looks, the first and the longest
_TOLD = 30.0  # seconds between lines while waiting


class Claims:
    """What devices said, in the file at ``path``; ``times`` what others have, and what it said before, is what a device may weigh."""

    def __init__(self, path: Path, times: float) -> None:
        self._path, self._times = path, times
        self._train: dict[int, int] = {}
        self._tests: dict[int, int] = {}
        if path.exists():
            try:
                self._train = {
                    int(number): int(count) for number, count in json.loads(path.read_text()).items()
                }
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise CheckpointError(f"cannot read {path}: {error}") from None

    @property
    def begun(self) -> bool:
        """Whether there is nothing to ask before a round: devices were asked, or nothing is bounded."""
        return not self._times or bool(self._train) or self._path.exists()

    def begin(self, devices: Sequence[DeviceState]) -> None:
        """Keep what devices said when they enrolled. On disk on return."""
        self._train = {device.number: device.train_samples for device in devices}
        write_text(self._path, json.dumps(self._train))
        flush_folder(self._path.parent)

    def note(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Take up what devices said in a round."""
        for report in reports:
            if report["state"] == "done":
                known = self._tests if report.get("kind") == "evaluate" else self._train
                known[int(report["number"])] = int(report["samples"])

    def weights(self) -> Weights:
        """What devices may weigh in the next round."""
        return weights_of(self._train, self._times)

    def tests(self, result: RoundResult) -> RoundResult:
        """A round's evaluation, in which no device weighs more than the others' test data and its own before let it."""
        done = [
            report
            for report in result.reports
            if (report.get("kind"), report["state"]) == ("evaluate", "done")
        ]
        said = {int(report["number"]): int(report["samples"]) for report in done}
        if not self._times or not said or "test_samples" not in result.evaluate:
            return result
        weights = weights_of(said, self._times)
        before = weights_of(self._tests, self._times).own if self._tests else {}
        found = {
            number: min(weights.of(number, count), before.get(number, count))
            for number, count in said.items()
        }
        reports = tuple(
            {**report, "weight": found[int(report["number"])]} if report in done else report
            for report in result.reports
        )
        counts = [
            float(min(count, found.get(int(client), count)))
            for client, count in zip(result.evaluate["client"], result.evaluate["test_samples"], strict=True)
        ]
        return replace(result, reports=reports, evaluate={**result.evaluate, "test_samples": counts})


def bounded_line(report: Mapping[str, Any]) -> str | None:
    """Of a device that counted as less than it said, in words; None of others."""
    samples, weight = int(report.get("samples", 0)), int(report.get("weight", 0))
    if report["state"] != "done" or not 0 < weight < samples:
        return None
    what = " of test data" if report.get("kind") == "evaluate" else ""
    return f"{report['device']} says {samples} samples{what} and counts as {weight} (--largest-weight)"


def wait_for_devices(grid: SiteGrid, settings: RunSettings, say: Say, *, claims: bool) -> list[DeviceState]:
    """The devices of the sites that are there, as their sites see them; says who is awaited, and what ends the waiting.

    With ``claims``, waits until half of the devices are there, or the quorum where that is less: a round with fewer would only wait for them, and
    what they have is what others' samples are compared with. ``settings.patience`` ends that.
    """
    started, told, look = time.monotonic(), -math.inf, _LOOKS[0]
    while True:
        devices = [device for device in grid.look() if not device.revoked]
        here = [device for device in devices if device.online]
        share = min(settings.quorum or _SHARE, _SHARE)
        needed = max(1, math.ceil(share * len(devices)))
        waited = time.monotonic() - started
        if not claims or len(here) >= needed or waited > settings.patience or not devices:
            if len(here) < len(devices):
                say(_awaited(devices, settings))
            return devices
        if waited >= 5 and waited - told >= _TOLD:
            told = waited
            say(
                f"waiting for devices: {len(here)} of {len(devices)} are here, and a run begins with {needed}. Not here yet: "
                f"{_names(devices)}. Start them with fedali-client join KIT; --quorum {_quorum(len(here), len(devices))} begins "
                f"with fewer, --patience ({settings.patience:g} s) ends the waiting"
            )
        time.sleep(look)
        look = min(2 * look, _LOOKS[1])


def _awaited(devices: Sequence[DeviceState], settings: RunSettings) -> str:
    names, here = _names(devices), sum(device.online for device in devices)
    if not settings.quorum:
        return (
            f"not here yet: {names}. A round waits for the devices that are there, and {settings.grace_seconds:g} s for others "
            "(--grace); --quorum 1 would wait for all"
        )
    return (
        f"not here yet: {names}. With --quorum {settings.quorum:g} training and evaluation of each round may wait up to "
        f"{settings.seconds:g} s for them (--seconds). Without them: Ctrl-C, then --resume with --quorum {_quorum(here, len(devices))}"
    )


def _names(devices: Sequence[DeviceState]) -> str:
    away = [device.device for device in devices if not device.online]
    more = f" and {len(away) - _SHOWN} more" if len(away) > _SHOWN else ""
    return ", ".join(away[:_SHOWN]) + more


def _quorum(here: int, all_: int) -> str:
    """A share that those who are here are enough for."""
    return f"{max(0.01, math.floor(100 * max(here, 1) / all_) / 100):g}"
