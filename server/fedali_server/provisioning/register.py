"""The register of a federation: who was issued what. It stays with the authorities, where kits are made."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fedali.bundle.json_reader import JsonError, JsonReader, read_json
from fedali.errors import KitError
from fedali.support.files import reporting
from fedali.wire.kit import is_name
from fedali_server.provisioning.certificates import fingerprint, parse_certificate
from fedali_server.provisioning.kit_files import write_file

FILE = "register.json"
_KINDS = ("server", "operator", "site", "device")


@dataclass(frozen=True)
class Member:
    """Somebody with a certificate."""

    kind: str
    """``server``, ``operator``, ``site`` or ``device``."""
    certificate: str
    """PEM."""
    number: int = -1
    """Of a device: never given to another."""
    site: str = ""
    """Of a device."""
    node_key: str = ""
    """Of a site: its public key, OpenSSH."""
    former: tuple[str, ...] = ()
    """Fingerprints of earlier certificates."""
    revoked_node_keys: tuple[str, ...] = ()
    """Of a site: public keys that it had when it was revoked."""
    revoked: bool = False

    @property
    def loaded(self) -> x509.Certificate:
        """The certificate."""
        return parse_certificate(self.certificate.encode())

    @property
    def sha256(self) -> str:
        """The certificate's fingerprint."""
        return fingerprint(self.loaded)

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""
        return self.loaded.not_valid_after_utc

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses that it is a server under."""
        names = self.loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = map(str, names.get_values_for_type(x509.IPAddress))
        return (*names.get_values_for_type(x509.DNSName), *addresses)


@dataclass
class Register:
    """All members by name, also those that were taken out of ``federation.toml``: ``server``, ``operator``, and names."""

    federation: str
    members: dict[str, Member] = field(default_factory=dict)

    def next_number(self) -> int:
        """A device's number that no device ever had."""
        return max((member.number for member in self.members.values()), default=-1) + 1

    def change(self, name: str, **changes: object) -> Member:
        """The member ``name``, with what was changed."""
        self.members[name] = replace(self.members[name], **changes)  # type: ignore[arg-type]
        return self.members[name]

    def save(self, folder: Path) -> None:
        """Write the register into a folder, atomically, readable by its owner alone."""
        members = {name: vars(member) for name, member in self.members.items()}
        text = json.dumps({"version": 1, "federation": self.federation, "members": members}, indent=1)
        write_file(folder / FILE, text.encode(), private=True)

    @staticmethod
    def load(folder: Path) -> Register:
        """The register in a folder; ``KitError`` when it is none."""
        path = folder / FILE
        with reporting(path, "read"):
            data = path.read_bytes()
        try:
            reader = read_json(data, str(path))
            reader.integer("version", 1, 1)
            register = Register(reader.text("federation"))
            register.members = {name: _member(name, each) for name, each in reader.each("members").items()}
            reader.done()
        except JsonError as error:
            raise KitError(f"{error}; restore {folder} from a backup") from None
        return register


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that make or revoke kits out of a folder."""
    path = folder / ".lock"
    with reporting(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _member(name: str, reader: JsonReader) -> Member:
    if not is_name(name):
        raise JsonError(f"{reader.where} is no name")
    member = Member(
        kind=reader.choice("kind", _KINDS),
        certificate=reader.take("certificate", str),
        number=reader.integer("number", -1),
        site=reader.take("site", str),
        node_key=reader.take("node_key", str),
        former=_texts(reader, "former"),
        revoked_node_keys=_texts(reader, "revoked_node_keys"),
        revoked=reader.take("revoked", bool),
    )
    reader.done()
    return member


def _texts(reader: JsonReader, key: str) -> tuple[str, ...]:
    found = reader.take(key, list)
    if not all(isinstance(each, str) for each in found):
        raise reader.wrong(key, found)
    return tuple(found)
