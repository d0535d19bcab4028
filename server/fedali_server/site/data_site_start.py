"""``fedali site start KIT --data DIR``: the Flower node of a site that holds data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from fedali.engines.choose import EngineName
from fedali.support.files import reporting
from fedali.v1 import relay_pb2
from fedali.wire.kit import SiteKit
from fedali.wire.options import relay_options
from fedali.wire.sockets import UnixAddress
from fedali_server.children import alone
from fedali_server.site.site import DataSite
from fedali_server.site.site_start import answer, leaving


def run_data_site(
    kit: SiteKit,
    data: Path | str,
    state: Path,
    *,
    engine: EngineName,
    workers: int,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Run a site with the data in ``data``, a folder or a function's name, until SIGTERM or Ctrl-C, which leave the server in good order.

    Raises ``FedaliError`` when data or state cannot be used, when the server and this site do not trust each other, or when
    another site uses ``state``.
    """
    with leaving(kit), alone(state, "site"):
        site = DataSite(kit, data, state, engine=engine, workers=workers, settings=settings)
        with _telling(site, state / "relay.sock"):
            answer(kit, state, site)


@contextmanager
def _telling(site: DataSite, socket: Path) -> Iterator[None]:
    """Tell ``fedali status`` on this machine who is there, over a Unix socket."""
    with reporting(socket):
        socket.unlink(missing_ok=True)
        socket.parent.chmod(0o700)
    there = UnixAddress(socket)
    status = grpc.unary_unary_rpc_method_handler(
        lambda request, context: site.status(),
        request_deserializer=relay_pb2.StatusRequest.FromString,
        response_serializer=relay_pb2.SiteStatus.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(1), options=relay_options())
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("fedali.v1.Relay", {"Status": status}),)
    )
    server.add_insecure_port(there.address)
    server.start()
    try:
        yield
    finally:
        server.stop(None)
        socket.unlink(missing_ok=True)
        there.close()
