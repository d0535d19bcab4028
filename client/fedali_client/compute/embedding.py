"""Embeddings of the frozen body, computed once and kept on disk: a fit of the head reads them in each epoch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import FedaliError
from fedali.support.files import atomic

Array = npt.NDArray[Any]

_NAME = "embeddings-{}.npy"


def cached_embeddings(folder: Path, key: bytes, count: int, compute: Callable[[], Array]) -> Array:
    """Embeddings [n, d] that ``key`` stands for: of the file in ``folder`` that has them, mapped, or what ``compute`` gives.

    ``key`` depends on everything they are computed from, so that a file is never out of date; others are removed. A
    file that cannot be written costs time, no fit.
    """
    path = folder / _NAME.format(key.hex()[:32])
    for other in folder.glob(_NAME.format("*")):
        if other != path:
            other.unlink(missing_ok=True)
    with contextlib.suppress(OSError, ValueError):
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(found) == count:
            return found
    embeddings = compute()
    with contextlib.suppress(FedaliError):
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, embeddings)
            stream.flush()
            os.fsync(stream.fileno())
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    return embeddings
