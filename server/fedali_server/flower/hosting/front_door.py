"""The doors of a server: what comes in from outside, over TLS, on its way to the SuperLink's Unix socket.

There are two. The one for sites lets through what a Flower node asks for, and nothing else: a node's key is checked behind it.
The one for operators asks for a certificate that the federation's authority gave to an operator, and lets through what a run
needs. A run brings no code: one that does is refused here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from flwr.common.serde import user_config_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from google.protobuf.message import DecodeError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedali.errors import SettingsError
from fedali.version import __version__
from fedali.wire.kit import ServerKit, host_and_port
from fedali_server.flower.hosting.empty_bundle import empty_bundle

SITES = tuple(
    f"/v1/fleet/{name}"
    for name in (
        *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages"),
        *("pull-object", "push-object", "confirm-message-received", "get-run", "get-fab"),
    )
)
_START_RUN = "/v1/control/start-run"
OPERATORS = (
    _START_RUN,
    *(f"/v1/control/{name}" for name in ("list-runs", "stop-run", "list-nodes")),
    *(
        f"/v1/runtime/{name}"
        for name in (
            *("acquire-task", "pull-task-input", "push-task-output", "send-task-heartbeat", "get-nodes"),
            *("push-messages", "pull-messages", "push-object", "pull-object", "confirm-message-received"),
        )
    ),
)

LARGEST = 64 << 20  # bytes of a request; Flower sends arrays in pieces of 20 MiB
_LARGEST_RUN = 1 << 20  # bytes of a run's submission
_SILENCE = 30.0  # seconds that a request's body may pause, or a connection be without a whole request's head
_CONNECTIONS = 500  # at a door
_DROPPED = {  # headers of one hop, and what the client on the other side writes itself
    *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade"),
    *("host", "expect", "date", "server"),
}


class Door:
    """What lets requests to ``paths`` through to a SuperLink, as an ASGI application.

    Args:
        superlink: the Unix socket.
        paths: that are let through; POST alone.
    """

    def __init__(self, superlink: Path, paths: tuple[str, ...]) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(superlink), limits=httpx.Limits(max_connections=None, max_keepalive_connections=100)
            ),
            timeout=httpx.Timeout(60.0, pool=None),
        )
        self.app = Starlette(routes=[Route(path, self._pass, methods=["POST"]) for path in paths])

    async def close(self) -> None:
        """End the connections to the SuperLink."""
        await self._client.aclose()

    async def _pass(self, request: Request) -> Response:
        """Hand a request on, and its response back, without holding either whole."""
        starts_run = request.url.path == _START_RUN
        body: AsyncIterator[bytes] | bytes = _Body(request, _LARGEST_RUN if starts_run else LARGEST).read()
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in _DROPPED]
        try:
            if starts_run:
                body = b"".join([part async for part in body])  # type: ignore[union-attr]
                if _brings_code(body):
                    raise _RefusedError(
                        403, f"a run must not bring code, it does or is not of FedAli {__version__}"
                    )
            outgoing = self._client.build_request(
                "POST", f"http://superlink{request.url.path}", headers=headers, content=body
            )
            response = await self._client.send(outgoing, stream=True)
        except _RefusedError as error:
            return _refuse(error.status, str(error))
        except ClientDisconnect:
            return Response(status_code=400)
        except httpx.TransportError:
            return _refuse(503, "the SuperLink is not there: try again")
        return StreamingResponse(
            response.aiter_raw(),
            response.status_code,
            {name: value for name, value in response.headers.items() if name not in _DROPPED},
            background=BackgroundTask(response.aclose),
        )


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Body:
    """A request's body, as large as it may be, and no slower."""

    def __init__(self, request: Request, largest: int) -> None:
        self._request, self._left = request, largest

    async def read(self) -> AsyncIterator[bytes]:
        parts = self._request.stream()
        while True:
            try:
                part = await asyncio.wait_for(anext(parts), _SILENCE)
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError:
                raise _RefusedError(408, "the request did not arrive") from None
            self._left -= len(part)
            if self._left < 0:
                raise _RefusedError(413, "the request is too large")
            yield part


def _refuse(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status, {"connection": "close"})


def _brings_code(body: bytes) -> bool:
    """Whether a run's submission has anything but its settings: a bundle with more in it, or an app from elsewhere."""
    try:
        request = StartRunRequest.FromString(body)
        bundle = empty_bundle(user_config_from_proto(request.override_config))
        return bool(request.app_spec) or request.fab.content != bundle
    except (DecodeError, ValueError, KeyError):
        return True


class _Patience(H11Protocol):
    """HTTP/1.1 that ends a connection which goes on without a whole head of a request."""

    _watch: asyncio.TimerHandle | None = None
    _answered: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch = self.loop.call_later(_SILENCE, self._look, False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look(self, waited: bool) -> None:
        """Twice without a request and not idle either: what comes in is no request, or comes by drops."""
        waits = (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None
        if waits and waited and self._answered is self.cycle:
            self.transport.abort()
            return
        self._answered = self.cycle
        self._watch = self.loop.call_later(_SILENCE / 2, self._look, waits)


class DoorServer(uvicorn.Server):
    """Serves a door; signals are its caller's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def server_of(door: Door, kit: ServerKit, *, operators: bool) -> DoorServer:
    """What serves a door over TLS: with a certificate of an operator's asked for, or without."""
    trust: dict[str, Any] = {}
    if operators:
        trust = {"ssl_ca_certs": str(kit.operators_authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        door.app,
        http=_Patience,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        limit_concurrency=_CONNECTIONS,
        ssl_certfile=str(kit.certificate),
        ssl_keyfile=str(kit.key),
        **trust,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"cannot use the certificates of {kit.folder}: {error}") from None
    return DoorServer(config)


def listen(address: str) -> socket.socket:
    """A listening socket; ``SettingsError`` when the address cannot be had."""
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise SettingsError(f"cannot listen on {address}: {error.strerror or error}") from None
    # Connections inherit it; asyncio sets it on sockets made with a protocol alone. Without, each answer waits 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
