"""The process: both services, from start to end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio

from fedali.errors import FedaliError
from fedali.support.files import reporting
from fedali.v1 import federation_pb2, relay_pb2
from fedali.wire.kit import SiteKit
from fedali.wire.options import relay_options, server_options
from fedali.wire.sockets import UnixAddress
from fedali_server.gateway.gateway import Gateway
from fedali_server.gateway.limits import Limits
from fedali_server.gateway.relay_service import RelayService
from fedali_server.gateway.rpc import handler
from fedali_server.gateway.service import FederationService

_LOOKAHEAD = 16 << 10  # bytes that a device may send before they are asked for
_GRACE = 2.0  # seconds for calls to end when the gateway stops


async def serve(kit: SiteKit, state: Path, socket: Path, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``FedaliError`` for what keeps the gateway from starting."""
    with _alone(state):
        gateway = Gateway(kit, state, limits)
        await gateway.start()
        there = _place(socket)
        relay, devices = _relay(gateway, there), _devices(gateway)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await relay.start()
            os.chmod(socket, 0o600)  # noqa: PTH101
            await devices.start()
            sys.stderr.write(f"gateway listening on {kit.listen}\n")
            sys.stderr.flush()
            await stop.wait()
        finally:
            gateway.stopping = True
            gateway.tell()
            await asyncio.gather(devices.stop(_GRACE), relay.stop(_GRACE))
            await gateway.stop()
            socket.unlink(missing_ok=True)
            there.close()


def _devices(gateway: Gateway) -> grpc.aio.Server:
    kit, options = gateway.kit, dict(server_options())
    options |= {
        "grpc.http2.lookahead_bytes": _LOOKAHEAD,
        "grpc.http2.bdp_probe": 0,
        "grpc.max_concurrent_streams": gateway.limits.streams,
        "grpc.max_metadata_size": 8 << 10,
        "grpc.server_handshake_timeout_ms": int(1e3 * gateway.limits.handshake),
        "grpc.max_connection_idle_ms": int(1e3 * gateway.limits.idle),
    }
    server = grpc.aio.server(options=list(options.items()))
    service = federation_pb2.DESCRIPTOR.services_by_name["Federation"]
    server.add_generic_rpc_handlers((handler(service, FederationService(gateway).methods),))
    with reporting(kit.folder, "read"):
        pair = kit.key.read_bytes(), kit.certificate.read_bytes()
        authority = kit.devices_authority.read_bytes()
    credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
    try:
        server.add_secure_port(kit.listen, credentials)
    except RuntimeError:
        raise FedaliError(
            f"cannot listen on {kit.listen}: is another program there, or is it no address of this machine?"
        ) from None
    return server


def _place(socket: Path) -> UnixAddress:
    with reporting(socket):
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
    there = UnixAddress(socket)
    if socket.parent.stat().st_mode & 0o077:
        raise FedaliError(
            f"{socket.parent} can be entered by others, and the socket in it: chmod 700 {socket.parent}"
        )
    return there


def _relay(gateway: Gateway, there: UnixAddress) -> grpc.aio.Server:
    server = grpc.aio.server(options=relay_options())
    service = relay_pb2.DESCRIPTOR.services_by_name["Relay"]
    server.add_generic_rpc_handlers((handler(service, RelayService(gateway).methods),))
    server.add_insecure_port(there.address)
    return server


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state; ``FedaliError`` while another gateway does."""
    with reporting(state):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FedaliError(f"another gateway runs with the state {state}") from None
        yield
    finally:
        os.close(handle)
