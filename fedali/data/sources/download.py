"""Fetching one file over HTTP: resumed after a break, retried, and never larger than allowed."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedali.data.sources.extras import require
from fedali.errors import DataError

Progress = Callable[[int, "int | None"], None]

_CHUNK = 1 << 13  # what a break can lose at most
_MOST_ATTEMPTS = 100  # however little each one brings
_RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}


class _BrokenOffError(Exception):
    """The transfer stopped early; another attempt may continue it."""


def download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    attempts: int = 4,
    pause: float = 1.0,
    timeout: float = 30.0,
    progress: Progress | None = None,
) -> None:
    """Fetch ``url`` into ``path``, which appears only when it is whole.

    Bytes gather in ``path`` + ``.part``; a break, in this process or an earlier one, is continued with an HTTP Range
    request, or from the start where the server ignores it. Each of ``attempts`` waits twice as long as the one before,
    ``pause`` seconds first; an attempt that brought new bytes does not count. ``progress(bytes so far, total or None)``
    is called after each chunk.

    Raises ``DataError`` when the server cannot be reached, refuses, or sends more than ``max_bytes``, and
    ``MissingExtraError`` without requests.
    """
    requests = require("requests")
    part = path.with_name(path.name + ".part")
    failures = 0
    for _ in range(_MOST_ATTEMPTS):
        before = _size(part)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(requests, url, part, max_bytes, timeout, progress)
            part.replace(path)
            return
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            _BrokenOffError,
        ) as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise DataError(f"cannot download {url}: {_reason(error)}") from error
        except requests.RequestException as error:
            raise DataError(f"cannot download {url}: {error}") from error
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
            raise DataError(f"cannot write {part}: {reason}") from error
        time.sleep(pause * 2 ** (failures - 1))
    raise DataError(f"cannot download {url}: the connection keeps breaking off")


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the lock of ``cache``: sites started together must not write one download at the same time."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        stream = (cache / ".lock").open("wb")
    except OSError as error:
        raise DataError(
            f"cannot write the cache folder {cache}: {error.strerror}; set FEDALI_DATA instead"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch(
    requests: Any, url: str, part: Path, max_bytes: int, timeout: float, progress: Progress | None
) -> None:
    """One attempt: append to ``part`` what it lacks. Raises ``_BrokenOffError`` when it ends too early."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # sizes and offsets must count the bytes that are stored
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == 416:  # the part is no beginning of the file that is there now
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the file changed on the server")
        if response.status_code in _RETRY_STATUS:
            raise _BrokenOffError(f"the server answered {response.status_code}")
        if response.status_code not in (200, 206):
            raise DataError(f"cannot download {url}: the server answered {response.status_code}")
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if response.status_code == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the server sent another range than asked for")
        size = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = size + int(length) if length.isdigit() else None
        _check_size(url, total or 0, max_bytes, part)
        with part.open("ab" if resumed else "wb") as stream:
            for chunk in response.iter_content(_CHUNK):
                size += len(chunk)
                _check_size(url, size, max_bytes, part)
                stream.write(chunk)
                if progress is not None:
                    progress(size, total)
    if total is not None and size < total:
        raise _BrokenOffError(f"the connection ended after {size} of {total} bytes")


def _check_size(url: str, size: int, max_bytes: int, part: Path) -> None:
    if size > max_bytes:
        part.unlink(missing_ok=True)
        raise DataError(f"cannot download {url}: it is larger than the {max_bytes} bytes expected at most")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """A few words for a failed transfer; the libraries' own messages run over several lines of nested names."""
    text = str(error)
    if isinstance(error, _BrokenOffError):
        return text
    if "timed out" in text.lower():
        return "the server did not answer in time"
    if "IncompleteRead" in text or "Connection broken" in text:
        return "the connection keeps breaking off"
    return "the server cannot be reached (offline?)"
