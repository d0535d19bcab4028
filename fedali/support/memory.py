"""What becomes of free memory: a process that waits gives it back to the system, one that computes keeps it, and looks for
Python's garbage less often.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_SMALL = 64 << 10  # bytes: blocks of this size and more go back to the system as soon as they are free


def share_arena() -> None:
    """From now on, all threads take from one heap, so that what one frees serves another. Elsewhere than on glibc: nothing."""
    _set({_ARENA_MAX: 1})


def stay_small() -> None:
    """``share_arena``, and give large free blocks back at once, which takes time in a process that moves much."""
    _set({_ARENA_MAX: 1, _TRIM_THRESHOLD: _SMALL, _MMAP_THRESHOLD: _SMALL})


def keep_freed() -> None:
    """Let the allocator keep what a step frees for the next step, from one heap. Elsewhere than on glibc: nothing.

    By default glibc maps every larger tensor anew and returns it when it is freed; the page faults take 6 to 30 % of a
    compiled step. Heaps of threads other than the first would map large tensors all the same.
    """
    _set({_ARENA_MAX: 1, _TRIM_THRESHOLD: (1 << 31) - 1, _MMAP_THRESHOLD: 1 << 30})


def give_back() -> None:
    """Give free memory back to the system. Elsewhere than on glibc: nothing but Python's own."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        _libc().malloc_trim(0)


def collect_rarely() -> None:
    """Look for cyclic garbage at a hundredth of the usual rate: for processes that build large libraries' objects and end.

    Importing torch and flwr and exporting a graph make a million objects that stay; looking through them takes a tenth to a
    quarter of that time.
    """
    gc.set_threshold(100_000, 20, 20)


@contextlib.contextmanager
def collecting_rarely() -> Iterator[None]:
    """``collect_rarely`` for a while."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def free_memory() -> int | None:
    """Bytes that this process could still use: of the machine, and of its container; None where the system does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # "max" without a limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text("ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        found.append(max(0, limit - used + int(stat.get("inactive_file", 0))))  # files read lately make room
    return min(found, default=None)


def _set(parameters: Mapping[int, int]) -> None:
    with contextlib.suppress(AttributeError, OSError):
        for parameter, value in parameters.items():
            _libc().mallopt(parameter, value)


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None)
