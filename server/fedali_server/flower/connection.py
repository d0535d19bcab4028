"""What both ends of a connection to a SuperLink need: a client, its faults in one line, and heartbeats."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from flwr.supercore.protobuf.client import ProtobufClient

from fedali.errors import FedaliError
from fedali_server.flower.link import Link

_C = TypeVar("_C", bound=ProtobufClient)


class LinkLostError(FedaliError):
    """The SuperLink went away, or forgot the run; a run can be taken up again when it is back."""


def client_of(kind: type[_C], link: Link, interceptors: Sequence[Any], retry: Any = None) -> _C:
    """A client of one of Flower's interfaces."""
    scheme, verify = ("http", False) if link.insecure else ("https", link.context())
    return kind(f"{scheme}://{link.address}", interceptors=interceptors, verify=verify, retry_invoker=retry)


def refusal(error: httpx.HTTPError, link: Link) -> FedaliError:
    """What went wrong between us and the SuperLink, in one line; ``LinkLostError`` where waiting may help."""
    if isinstance(error, httpx.HTTPStatusError):
        if is_away(error):
            return LinkLostError(f"the server at {link.address} is there, and its SuperLink is not")
        try:
            why = str(error.response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            why = f"HTTP status {error.response.status_code}"
        return FedaliError(f"the SuperLink at {link.address} refused: {why}")
    kind, why = FedaliError if is_distrust(error) else LinkLostError, str(error) or type(error).__name__
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError)) and not link.insecure:
        why += " It hangs up on strangers: the port for operators needs an operator's certificate"
    return kind(f"no SuperLink answers at {link.address}: {why}")


def is_away(error: httpx.HTTPError) -> bool:
    """Whether a SuperLink cannot be reached, perhaps for a moment only."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (502, 503, 504)  # a door is there, and nobody behind it
    return isinstance(error, httpx.TransportError) and not is_distrust(error)


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
