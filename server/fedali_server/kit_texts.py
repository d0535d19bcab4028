"""What a kit tells people: how its member is started. (For now, the bare command.)"""

from __future__ import annotations

from fedali_server.federation_file import FederationConfig
from fedali_server.register import Register

_COMMANDS = {
    "server": "fedali server start .",
    "site": "fedali site start .",
    "device": "fedali-client join . --data train.npz",
    "operator": "fedali run SCENARIO --kit .",
}


def texts(kind: str, name: str, config: FederationConfig, register: Register) -> dict[str, str]:
    """Files of a kit by name, for people and for the machine's service manager."""
    return {"README.txt": f"{_COMMANDS[kind]}\n"}
