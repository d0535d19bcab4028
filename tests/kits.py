"""A small federation, provisioned for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedali.wire.kit import DeviceKit, SiteKit, read_kit, read_kit_as
from fedali_server.provisioning.certificates import identity, load_certificate
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import Provisioned, provision

SITES = {"site-a": ("device-0", "device-1", "device-2"), "site-b": ("device-3", "device-4")}


def federation(sites: dict[str, tuple[str, ...]] | None = None, **settings: Any) -> FederationConfig:
    """Two sites with five devices on the loopback interface, at the usual ports."""
    sites = SITES if sites is None else sites
    plain = {
        "name": "wards",
        "server": {"address": "127.0.0.1:9092", "listen": "127.0.0.1:9092"},
        "sites": [
            {"name": name, "address": f"127.0.0.1:{9443 + ord(name[-1]) - ord('a')}", "devices": devices}
            for name, devices in sites.items()
        ],
    }
    return FederationConfig.model_validate({**plain, **settings})


def provisioned(config: FederationConfig, folder: Path, **options: Any) -> Provisioned:
    """The kits of a federation in ``folder``; whatever is to be warned of is a failure."""
    done = provision(config, folder, **options)
    assert done.warnings == ()
    return done


def members(folder: Path) -> dict[str, int]:
    """Numbers of the devices by name, as sites and devices agree on them."""
    numbers = {}
    for path in folder.iterdir():
        if (path / "kit.json").exists() and isinstance(kit := read_kit(path), SiteKit):
            for name, number, sha256 in kit.devices:
                device = read_kit_as(folder / name, DeviceKit)
                assert device.number == number
                assert device.gateway_name.startswith(f"{kit.name}.")
                assert identity(load_certificate(device.certificate)).sha256 == sha256
                numbers[name] = number
    return numbers
