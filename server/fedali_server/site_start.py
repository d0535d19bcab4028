"""``fedali site start``: a site's gateway, and the Flower node that hands it the server's rounds."""

from __future__ import annotations

import signal
from pathlib import Path

from fedali.kit import SiteKit
from fedali_server.children import Child, alone, say
from fedali_server.link import Link
from fedali_server.node import serve
from fedali_server.relay import Gateway, make_relay_app


def run_site(kit: SiteKit, state: Path) -> None:
    """Run a site until SIGTERM or Ctrl-C, which leave the server and end the gateway in good order.

    The gateway is a process of its own, which is started again when it dies. The node is this process.

    Raises ``FedaliError`` when the gateway does not start, when the server and this site do not trust each other, or when
    another site uses ``state``.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    link = Link(kit.superlink, kit.superlink_authority)
    words = ["fedali_server.gateway", str(kit.folder), "--state", str(state)]
    try:
        with (
            alone(state, "site") as lock,
            Child("the gateway", words, "gateway listening", inherit=(lock,)),
        ):
            gateway = Gateway(state / "relay.sock")
            try:
                serve(
                    link,
                    make_relay_app(lambda _: gateway),
                    key=kit.node_key,
                    state=state / "node.json",
                    joined=lambda: say(f"site {kit.name} has joined {kit.superlink}"),
                )
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)  # once is enough
                gateway.close()
    except KeyboardInterrupt:
        say(f"site {kit.name} has left {kit.superlink}")
