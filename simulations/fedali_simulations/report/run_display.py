"""What a person sees while devices train: a bar for each run, what each device is at, and a line for each round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from fedali.v1 import relay_pb2
from fedali_server.console import Console
from fedali_server.run.claims import bounded_line
from fedali_server.run.federated import RunProgress
from fedali_simulations.machines.site_monitor import Seen
from fedali_simulations.report.pace import Pace, duration


class _Bars(Progress):
    """Bars, and lines below them."""

    below: Sequence[Text] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the lines."""
        yield from super().get_renderables()
        yield from self.below


class RunDisplay:
    """Lines and bars on a console; when interrupted, it says how to go on."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._console, self._folder = console, folder
        self._progress = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[sites]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.live,
        )
        self._bars: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.below = []
        self._progress.stop()
        if kind is KeyboardInterrupt:
            self.say(f"stopped; continue with: fedali run --resume {self._folder}")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.say(line)

    def devices(self, seen: Seen) -> None:
        """Show what the devices of sites are at."""
        lines = [site_line(site, status) for site, status in seen.items()]
        self._progress.below = [Text(self._console.text(line)) for line in lines]
        self._progress.refresh()

    def report(self, name: str, progress: RunProgress) -> None:
        """Move a bar, and tell of a round that was completed."""
        if name not in self._bars:
            shown = self._console.text(name)
            self._bars[name] = self._progress.add_task(shown, total=progress.rounds, sites="")
            self._paces[name] = Pace(progress.rounds)
        sites = (
            f"{len(progress.sites)} site{'' if len(progress.sites) == 1 else 's'}" if progress.sites else ""
        )
        self._paces[name].note(name, progress.round)
        left = self._paces[name].left()
        more = "" if not left else f"about {duration(left)} left"
        words = ", ".join(part for part in (sites, more) if part)
        self._progress.update(self._bars[name], completed=progress.round, sites=words)
        if progress.reports:
            line = round_line(progress)
            self.say(line if self._console.live or not more else f"{line}\n  {name}: {more}")


def site_line(site: str, status: relay_pb2.SiteStatus | None) -> str:
    """A site's devices in one line: what each is at, or how long it has not been heard of."""
    if status is None:
        return f"{site}: its gateway does not answer"
    return f"{site}: " + ", ".join(f"{device.device} {_at(device)}" for device in status.devices)


def _at(device: relay_pb2.DeviceStatus) -> str:
    if device.revoked:
        return "revoked"
    if device.online:
        return device.doing.replace(",", "") or "online"
    return "not here yet" if device.seen_seconds < 0 else f"offline for {device.seen_seconds:.0f} s"


def round_line(progress: RunProgress) -> str:
    """A complete round in one line: who took part, accuracy, bytes; who did not, and why."""
    trained = [report for report in progress.reports if report.get("kind") == "train"]
    states = Counter(str(report["state"]) for report in trained)
    parts = [f"{states.pop('done', 0)} of {len(trained)} devices"]
    parts += [f"{count} {state}" for state, count in states.items()]
    if not math.isnan(progress.accuracy) and progress.accuracy >= 0:
        parts.append(f"{progress.accuracy:.1%} on their own test data")
    moved = sum(report["sent"] + report["received"] for report in progress.reports)
    parts += [f"{moved / 1e6:.2f} MB", f"{progress.seconds:.1f} s"]
    missed = [
        f"{r['device']} {r['state']}: {r['reason']}" for r in trained if r["state"] != "done" and r["reason"]
    ]
    missed += filter(None, map(bounded_line, progress.reports))
    return (
        f"round {progress.round}/{progress.rounds}: "
        + ", ".join(parts)
        + "".join(f"\n  {line}" for line in missed)
    )
