"""The relay for Flower's own ``flower-supernode``, which finds it as ``fedali_server.flower.relay_app:app``.

``--node-config 'socket="/path/of/relay.sock"'`` says where the gateway listens.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from fedali.errors import SettingsError
from fedali_server.flower.packing import unpacking
from fedali_server.site.relay import RelayConnection, make_relay_app


def _gateway(context: Context) -> RelayConnection:
    try:
        return _connected(str(context.node_config["socket"]))
    except KeyError:
        raise SettingsError(
            "the node does not know its gateway: start it with --node-config 'socket=\"KIT/state/relay.sock\"'"
        ) from None


@lru_cache(maxsize=1)
def _connected(socket: str) -> RelayConnection:
    return RelayConnection(Path(socket))


app = make_relay_app(_gateway, mods=[unpacking])
