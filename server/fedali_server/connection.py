"""What both ends of a connection to a SuperLink need: its faults in one line, and heartbeats."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from fedali.errors import FedaliError
from fedali_server.link import Link


def refusal(error: httpx.HTTPError, link: Link) -> FedaliError:
    """What went wrong between us and the SuperLink, in one line."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            why = str(error.response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            why = f"HTTP status {error.response.status_code}"
        return FedaliError(f"the SuperLink at {link.address} refused: {why}")
    return FedaliError(f"no SuperLink answers at {link.address}: {str(error) or type(error).__name__}")


def is_distrust(error: httpx.HTTPError) -> bool:
    """Whether an attempt failed because one side does not trust or understand the other: trying again is no use."""
    return isinstance(error, httpx.TransportError) and any(
        word in str(error).lower() for word in ("certificate", "ssl", "tls")
    )


@contextmanager
def beating(beat: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call ``beat`` every ``seconds`` in a thread of its own, until the end; what fails is tried at the next beat."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            try:
                beat()
            except (httpx.HTTPError, RuntimeError):  # httpx says RuntimeError once its client is closed
                continue

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
