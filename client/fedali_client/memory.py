"""Keeping a process small that waits most of the time: glibc's allocator gives back what is free, as far as it is asked to."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from functools import lru_cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_SMALL = 64 << 10  # bytes: blocks of this size and more go back to the system as soon as they are free


def stay_small() -> None:
    """From now on, give large free blocks back at once, and share one arena among threads. Elsewhere than on glibc: nothing."""
    with contextlib.suppress(AttributeError, OSError):
        for parameter, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _SMALL), (_MMAP_THRESHOLD, _SMALL)):
            _libc().mallopt(parameter, value)


def give_back() -> None:
    """Give free memory back to the system. Elsewhere than on glibc: nothing but Python's own."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        _libc().malloc_trim(0)


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None)
