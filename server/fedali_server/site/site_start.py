"""``fedali site start``: a site's gateway, and the Flower node that hands it the server's rounds."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedali.wire.kit import SiteKit
from fedali_server.children import Child, alone, say
from fedali_server.flower.link import Link
from fedali_server.flower.node import serve
from fedali_server.site.relay import RelayConnection, RoundKeeper, make_relay_app


def run_site(kit: SiteKit, state: Path) -> None:
    """Run a site until SIGTERM or Ctrl-C, which leave the server and end the gateway in good order.

    The gateway is a process of its own, which is started again when it dies. The node is this process.

    Raises ``FedaliError`` when the gateway does not start, when the server and this site do not trust each other, or when
    another site uses ``state``.
    """
    words = ["fedali_server.gateway", str(kit.folder), "--state", str(state)]
    with (
        leaving(kit),
        alone(state, "site") as lock,
        Child("the gateway", words, "gateway listening", inherit=(lock,)),
    ):
        gateway = RelayConnection(state / "relay.sock")
        try:
            answer(kit, state, gateway)
        finally:
            gateway.close()


@contextmanager
def leaving(kit: SiteKit) -> Iterator[None]:
    """End what is within at SIGTERM or Ctrl-C, and say that the site has left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say(f"site {kit.name} has left {kit.superlink}")


def answer(kit: SiteKit, state: Path, keeper: RoundKeeper) -> None:
    """Be the site's node, with rounds done by ``keeper``, until ``KeyboardInterrupt``; see ``fedali_server.flower.node.serve``."""
    try:
        serve(
            Link(kit.superlink, kit.superlink_authority),
            make_relay_app(lambda _: keeper),
            key=kit.node_key,
            state=state / "node.json",
            joined=lambda: say(f"site {kit.name} has joined {kit.superlink}"),
        )
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough
