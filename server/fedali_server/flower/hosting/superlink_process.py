"""``python -m fedali_server.flower.hosting.superlink_process FD DATABASE``: Flower's SuperLink behind a Unix socket.

Whoever reaches a SuperLink may submit runs, so it must not listen where other users of its machine can connect. Flower's own
command listens on TCP alone; this one takes a socket that it is given, and otherwise does what ``flower-superlink --database
DATABASE --isolation process --enable-supernode-auth`` does.

What it takes from inside Flower is listed in ``docs/flower.md``; ``tests/e2e/test_sites.py`` runs it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from fedali_server.quiet import quiet_flower

READY = "SuperLink is ready"


def main() -> None:
    """Serve until SIGTERM."""
    descriptor, database = int(sys.argv[1]), sys.argv[2]
    os.umask(0o077)  # the database holds models
    quiet_flower()
    import uvicorn
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                sys.stderr.write(f"{READY}\n")
                sys.stderr.flush()

    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=True,  # the doors in front of it encrypt
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=database,
        isolation="process",
        runtime_dependency_install=False,
    )
    for name in ("flwr", "uvicorn"):
        logging.getLogger(name).setLevel(logging.ERROR)  # importing Flower has turned its log on
    options = uvicorn.Config(
        create_app(config, SuperLinkLifespan),
        fd=descriptor,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=5,
    )
    Server(options).run()


if __name__ == "__main__":
    main()
