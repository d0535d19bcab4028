"""What is in each start-up kit, apart from private keys: written from who takes part and what they were issued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedali.wire.kit import FILE, VERSION
from fedali_server.provisioning.federation_file import FederationConfig, SiteSettings
from fedali_server.provisioning.kit_files import make_folder, write_file
from fedali_server.provisioning.kit_texts import TEXTS, texts
from fedali_server.provisioning.register import Register

STEMS = {
    "server": "server",
    "site": "gateway",
    "device": "device",
    "operator": "operator",
}  # of .pem and .key

_Files = dict[str, bytes]


def gateway_name(site: str, federation: str) -> str:
    """The name that is in the certificate of a site's gateway whatever its address; ``server`` is the server's."""
    return f"{site}.{federation}.fedali"


def write_kits(config: FederationConfig, out: Path, register: Register) -> tuple[list[str], list[str]]:
    """Write all kits but their private keys: names of those that were changed, and of devices whose kits are not here.

    The kit of a device that has been carried away is not made again; the others are, for there may be news in them.
    """
    changed, absent = [], []
    for name, kind, files in _Contents(config, out, register).all():
        folder = out / name
        if kind == "device" and not folder.exists():
            absent.append(name)
            continue
        make_folder(folder)
        written = set()
        for path, data in files.items():
            make_folder((folder / path).parent)
            if write_file(folder / path, data):
                written.add(path)
        if written - set(TEXTS):  # another version of FedAli may have other texts
            changed.append(name)
    return changed, absent


@dataclass
class _Contents:
    config: FederationConfig
    out: Path
    register: Register

    def all(self) -> Iterator[tuple[str, str, _Files]]:
        """Name, kind, and files of each member's kit."""
        yield "server", "server", self._server()
        yield "operator", "operator", self._operator()
        for site in self.config.sites:
            yield site.name, "site", self._site(site)
            for device in site.devices:
                yield device, "device", self._device(device, site)

    def _server(self) -> _Files:
        members, files = self.register.members, _Files()
        revoked = [
            _node(files, name, f"nodes/{name}-revoked-{index}.pub", key)
            for name, member in members.items()
            for index, key in enumerate(member.revoked_node_keys, 1)
        ]
        files["operators-authority.pem"] = self._authority("operators")
        server = self.config.server
        plain = {
            "listen": server.listen,
            "operators_listen": server.operators_listen,
            **self._own("server", "server", files),
            "operators_authority": "operators-authority.pem",
            "sites": self._nodes(files),
            "revoked": revoked,
        }
        return self._kit("server", "server", plain, files)

    def _operator(self) -> _Files:
        files = _Files()
        plain = {
            "server": self.config.server.operators_address,
            "authority": self._shared(files, "servers-authority.pem"),
            **self._own("operator", "operator", files),
            "signing_key": f"{self.config.name}.key",
            "trusted_key": self._shared(files, f"{self.config.name}.pub"),
            "sites": self._nodes(files),
            "devices": [
                {"name": name, "number": self.register.members[name].number, "site": site.name}
                for site in self._trusted_sites()
                for name in site.devices
                if not self.register.members[name].revoked
            ],
            "revoked": self._shared(files, "revoked.json"),
        }
        return self._kit("operator", "operator", plain, files)

    def _site(self, site: SiteSettings) -> _Files:
        files = _Files()
        files["node.pub"] = self.register.members[site.name].node_key.encode() + b"\n"
        plain = {
            "name": site.name,
            "listen": site.listen,
            "superlink": self.config.server.address,
            "superlink_authority": self._shared(files, "servers-authority.pem"),
            "node_key": "node.key",
            "devices_authority": self._shared(files, "devices-authority.pem"),
            **self._own("site", site.name, files),
            "trusted_key": self._shared(files, f"{self.config.name}.pub"),
            "devices": [
                {"name": name, "number": member.number, "certificate_sha256": member.sha256}
                for name, member in ((name, self.register.members[name]) for name in site.devices)
            ],
            "revoked": self._shared(files, "revoked.json"),
        }
        return self._kit("site", site.name, plain, files)

    def _device(self, name: str, site: SiteSettings) -> _Files:
        files = _Files()
        plain = {
            "name": name,
            "number": self.register.members[name].number,
            "gateway": site.address,
            "gateway_name": gateway_name(site.name, self.config.name),
            "authority": self._shared(files, "servers-authority.pem"),
            **self._own("device", name, files),
            "trusted_key": self._shared(files, f"{self.config.name}.pub"),
        }
        return self._kit("device", name, plain, files)

    def _trusted_sites(self) -> list[SiteSettings]:
        return [site for site in self.config.sites if not self.register.members[site.name].revoked]

    def _nodes(self, files: _Files) -> list[dict[str, str]]:
        keys = {site.name: self.register.members[site.name].node_key for site in self._trusted_sites()}
        return [_node(files, name, f"nodes/{name}.pub", key) for name, key in keys.items()]

    def _own(self, kind: str, name: str, files: _Files) -> dict[str, Any]:
        """The member's own certificate and key."""
        stem = STEMS[kind]
        files[f"{stem}.pem"] = self.register.members[name].certificate.encode()
        return {"certificate": f"{stem}.pem", "key": f"{stem}.key"}

    def _shared(self, files: _Files, name: str) -> str:
        """Puts a file that several kits have into this one."""
        if name.endswith("-authority.pem"):
            files[name] = self._authority(name.removesuffix("-authority.pem"))
        else:
            files[name] = (self.out / "authority" / name).read_bytes()
        return name

    def _authority(self, name: str) -> bytes:
        return (self.out / "authority" / f"{name}.pem").read_bytes()

    def _kit(self, kind: str, name: str, plain: dict[str, Any], files: _Files) -> _Files:
        plain = {"kit": kind, "version": VERSION, "federation": self.config.name, **plain}
        files[FILE] = (json.dumps(plain, indent=1) + "\n").encode()
        for file, text in texts(kind, name, self.config, self.register).items():
            files[file] = text.encode()
        return files


def _node(files: _Files, name: str, path: str, key: str) -> dict[str, str]:
    files[path] = key.encode() + b"\n"
    return {"name": name, "node_public_key": path}
