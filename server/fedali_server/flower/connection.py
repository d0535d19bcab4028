"""What both ends of a connection to a SuperLink need: a client, its faults in one line, and heartbeats."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClient, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import get_runtime_version_incompatibility_exit_message

from fedali.errors import FedaliError
from fedali_server.flower.link import Link

_C = TypeVar("_C", bound=ProtobufClient)


class LinkLostError(FedaliError):
    """The SuperLink went away, or forgot the run; a run can be taken up again when it is back."""


def client_of(
    kind: type[_C], link: Link, name: str, interceptors: Sequence[Any] = (), retry: Any = None
) -> _C:
    """A client of one of Flower's interfaces, which says that it is Flower's component ``name``."""
    scheme, verify = ("http", False) if link.insecure else ("https", link.context())
    chain = [RuntimeVersionHttpInterceptor(component_name=name), *interceptors, _SameFlower(link)]
    return kind(f"{scheme}://{link.address}", interceptors=chain, verify=verify, retry_invoker=retry)


class _SameFlower:
    """Raises where Flower itself would end this process: a SuperLink drives runs of its own minor version alone."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See ``ProtobufClientInterceptor``."""
        response = call_next(context)
        why = get_runtime_version_incompatibility_exit_message(response.text) if response.is_error else None
        if why is not None:
            theirs = re.search(r"SuperLink version (\d[\w.]*)", why)
            raise FedaliError(
                f"the SuperLink at {self._link.address} runs Flower {theirs[1] if theirs else 'of another version'}, "
                f"this is {version('flwr')}: install one version of flwr on both"
            )
        return response


def refusal(error: httpx.HTTPError, link: Link) -> FedaliError:
    """What went wrong between us and the SuperLink, in one line; ``LinkLostError`` where waiting may help."""
    if isinstance(error, httpx.HTTPStatusError):
        if is_away(error):
            return LinkLostError(
                f"the server at {link.address} is there, and does not do its work yet: its log says more"
            )
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
    """Whether an attempt failed because one side does not trust or understand the other: trying again is no use.

    A handshake that takes too long, or that ends in the middle, is one with a server that is busy, or just starts.
    """
    if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.TimeoutException):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError))
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def beating(beat: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call ``beat`` every ``seconds`` in a thread of its own, until the end; what fails is tried at the next beat."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            try:
                beat()
            except (
                httpx.HTTPError,
                FedaliError,
                RuntimeError,
            ):  # httpx says RuntimeError once its client is closed
                continue

    thread = threading.Thread(target=run, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
