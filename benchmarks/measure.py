"""Clocks, processor time and memory of a process and everything it started; Linux only."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36
_SMALLEST_PAUSE = 0.25  # seconds between two looks at memory


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends, so that Ray's daemons stay in this tree."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tree(root: int) -> list[int]:
    """Ids of ``root`` and of all processes below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds() -> float:
    """User and system time of this process and everything below it, alive or ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in tree(os.getpid())[1:]:
        total += sum(int(ticks) for ticks in _stat(pid)[11:15]) / _TICKS
    return total


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process by kind, such as ``Rss``, ``Pss`` and ``Anonymous``; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


class MemoryWatch:
    """Peak proportional set size of a process tree: shared pages count once. Looks a few times a second."""

    def __init__(self, root: int) -> None:
        self.peak = 0
        self._root, self._stop = root, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        pause = _SMALLEST_PAUSE
        while not self._stop.wait(pause):
            started = time.perf_counter()
            self.peak = max(self.peak, sum(memory(pid).get("Pss", 0) for pid in tree(self._root)))
            pause = max(_SMALLEST_PAUSE, 20 * (time.perf_counter() - started))  # at most 5 % of one core

    def stop(self) -> int:
        """End watching; the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self.peak


class RoundClock:
    """Wall and processor time at the ends of rounds."""

    def __init__(self) -> None:
        self._marks: list[
            tuple[float, float, float]
        ] = []  # a round's end, the next one's beginning, processor time
        self.first_round_done = 0.0

    def mark(self) -> None:
        """Call once before the first round and after each round."""
        ended = time.perf_counter()
        self._marks.append((ended, ended, 0.0))
        if len(self._marks) == 2:
            self.first_round_done = time.monotonic()
        self.resume()

    def resume(self) -> None:
        """Call when something was measured after a mark: the next round begins here."""
        spent = cpu_seconds()
        self._marks[-1] = (self._marks[-1][0], time.perf_counter(), spent)

    def rounds(self) -> list[dict[str, float]]:
        """Seconds and processor seconds of each round."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        return [{"seconds": b[0] - a[1], "cpu_seconds": b[2] - a[2]} for a, b in pairs]


class Stopwatch:
    """Seconds by name, added up until taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of a block to ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """What was added up since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of those of ``packages`` that are there."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in info)}
    flags = facts.get("flags", "").split()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": facts.get("model name", "unknown"),
        "family_model": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "avx512": "avx512f" in flags,
        "memory_gb": round(pages / 1e9, 1),
        "system": f"{os.uname().sysname} {os.uname().release.split('-')[0]} {os.uname().machine}",
    }


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
