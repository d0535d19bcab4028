"""Start-up kits: what a server, a site, a device or an operator of a federation needs, in one folder.

A kit is a folder with ``kit.json`` and the files that it names: certificates, keys. ``fedali provision`` writes kits. Reading
them needs the standard library alone, so that a device can.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from fedali.bundle.json_reader import JsonError, JsonReader, read_json
from fedali.errors import KitError

FILE = "kit.json"
VERSION = 1
MOST_DEVICES = 100_000  # numbers are smaller

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 32 << 20  # bytes of kit.json
_LARGEST_FILE = 1 << 20  # bytes of another file


class SiteDevice(NamedTuple):
    """A device as its site knows it."""

    name: str
    number: int
    """In the federation, from 0."""
    certificate_sha256: str
    """Of the certificate in DER, 64 hex digits: the one certificate that stands for the device."""


class RegisteredSite(NamedTuple):
    """A site as the server knows it."""

    name: str
    node_public_key: Path
    """ECDSA P-384, OpenSSH."""


class OperatorDevice(NamedTuple):
    """A device as an operator knows it."""

    name: str
    number: int
    site: str


@dataclass(frozen=True)
class DeviceKit:
    """What a device needs to join: ``fedali-client join KIT``. Files are absolute paths; keys and certificates are PEM."""

    folder: Path
    federation: str
    name: str
    number: int
    """In the federation, from 0."""
    gateway: str
    """HOST:PORT of its site's gateway."""
    gateway_name: str
    """The name that the gateway's certificate has to have."""
    authority: Path
    """Who signs for gateways."""
    certificate: Path
    key: Path
    trusted_key: Path
    """``.pub`` file of whoever signs bundles."""


@dataclass(frozen=True)
class SiteKit:
    """What a site needs: ``fedali site start KIT``."""

    folder: Path
    federation: str
    name: str
    listen: str
    """HOST:PORT where its gateway listens for devices."""
    superlink: str
    """HOST:PORT of the server."""
    superlink_authority: Path
    """Who signs for the server."""
    node_key: Path
    """Private key that the server knows this site by; ECDSA P-384, OpenSSH."""
    devices_authority: Path
    """Who signs for devices."""
    certificate: Path
    """Of the gateway."""
    key: Path
    trusted_key: Path
    """``.pub`` file of whoever signs bundles and revocations."""
    devices: tuple[SiteDevice, ...]
    revoked: Path
    """The signed list of certificates that are not to be trusted any more, as it was when the kit was written."""


@dataclass(frozen=True)
class ServerKit:
    """What the server needs: ``fedali server start KIT``."""

    folder: Path
    federation: str
    listen: str
    """HOST:PORT for sites."""
    operators_listen: str
    """HOST:PORT for operators."""
    certificate: Path
    key: Path
    operators_authority: Path
    """Who signs for operators."""
    sites: tuple[RegisteredSite, ...]
    revoked: tuple[RegisteredSite, ...]
    """Sites whose node keys are to be unregistered; none of them is in ``sites``."""


@dataclass(frozen=True)
class OperatorKit:
    """What an operator needs to run trainings: ``fedali run --kit KIT``, ``fedali status``."""

    folder: Path
    federation: str
    server: str
    """HOST:PORT of the server's port for operators."""
    authority: Path
    """Who signs for the server."""
    certificate: Path
    key: Path
    signing_key: Path
    """``.key`` file that signs bundles and revocations."""
    trusted_key: Path
    """``.pub`` file of ``signing_key``."""
    sites: tuple[str, ...]
    """Names of those that are not revoked."""
    node_keys: tuple[RegisteredSite, ...]
    """The same sites with their public keys."""
    devices: tuple[OperatorDevice, ...]
    revoked: Path
    """The signed list of certificates that are not to be trusted any more."""


Kit = DeviceKit | SiteKit | ServerKit | OperatorKit
_T = TypeVar("_T")
_K = TypeVar("_K", DeviceKit, SiteKit, ServerKit, OperatorKit)
_CALLED = {DeviceKit: "device", SiteKit: "site", ServerKit: "server", OperatorKit: "operator"}


def read_kit(folder: Path | str) -> Kit:
    """The kit in ``folder``.

    Raises ``KitError`` for a folder that holds none, a file that is missing or outside of it, and for a private key that
    others may read.
    """
    given = Path(folder)
    try:
        folder = given.resolve(strict=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o002 and os.name == "posix":
            raise KitError(f"{given} can be written by everybody: chmod 700 {given}")
        with (folder / FILE).open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise KitError(
            f"cannot read the kit {given}: {FILE}: {why}; a kit is a folder of `fedali provision`"
        ) from None
    if len(data) > _LARGEST:
        raise KitError(f"{given / FILE} is larger than {_LARGEST} bytes: that is no kit")
    try:
        return _Files(folder, read_json(data, str(given / FILE))).kit()
    except JsonError as error:
        raise KitError(str(error)) from None


def read_kit_as(folder: Path | str, kind: type[_K]) -> _K:
    """The kit in ``folder``; ``KitError`` also when it is a kit of another kind."""
    kit = read_kit(folder)
    if not isinstance(kit, kind):
        raise KitError(
            f"{folder} is a kit for the {_CALLED[type(kit)]}; this takes one for the {_CALLED[kind]}"
        )
    return kit


def is_name(text: str) -> bool:
    """Whether a federation, a site or a device may be called so: it becomes a part of host names.

    >>> [is_name(text) for text in ("ward-3", "Ward 3", "-x", "")]
    [True, False, False, False]
    """
    return _NAME.fullmatch(text) is not None


def host_and_port(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of HOST:PORT; ``ValueError`` for what is none.

    >>> host_and_port("fl.example.org:9092"), host_and_port("[::1]:9092")
    (('fl.example.org', 9092), ('::1', 9092))
    """
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address; for example fl.example.org:9092 or 10.0.0.5:9092")
    return host.strip("[]"), int(port)


class _Files:
    """Takes what ``kit.json`` says, and makes paths of names of files."""

    def __init__(self, folder: Path, json: JsonReader) -> None:
        self._folder, self._json = folder, json

    def kit(self) -> Kit:
        kind = self._json.choice("kit", tuple(_CALLED.values()))
        version = self._json.take("version", int)
        if version != VERSION:
            raise JsonError(
                f"{self._json.where} is of version {version}, this FedAli reads version {VERSION}"
            )
        read: dict[str, Callable[[], Kit]] = {
            "device": self._device,
            "site": self._site,
            "server": self._server,
            "operator": self._operator,
        }
        kit = read[kind]()
        self._json.done()
        return kit

    def _device(self) -> DeviceKit:
        return DeviceKit(
            folder=self._folder,
            federation=_name(self._json, "federation"),
            name=_name(self._json, "name"),
            number=self._json.integer("number", 0, MOST_DEVICES - 1),
            gateway=self._address("gateway"),
            gateway_name=self._json.text("gateway_name", 253),
            authority=self._public("authority"),
            certificate=self._public("certificate"),
            key=self._private("key"),
            trusted_key=self._public("trusted_key"),
        )

    def _site(self) -> SiteKit:
        return SiteKit(
            folder=self._folder,
            federation=_name(self._json, "federation"),
            name=_name(self._json, "name"),
            listen=self._address("listen"),
            superlink=self._address("superlink"),
            superlink_authority=self._public("superlink_authority"),
            node_key=self._private("node_key"),
            devices_authority=self._public("devices_authority"),
            certificate=self._public("certificate"),
            key=self._private("key"),
            trusted_key=self._public("trusted_key"),
            devices=self._devices(),
            revoked=self._public("revoked"),
        )

    def _server(self) -> ServerKit:
        return ServerKit(
            folder=self._folder,
            federation=_name(self._json, "federation"),
            listen=self._address("listen"),
            operators_listen=self._address("operators_listen"),
            certificate=self._public("certificate"),
            key=self._private("key"),
            operators_authority=self._public("operators_authority"),
            sites=self._sites("sites"),
            revoked=self._sites("revoked"),
        )

    def _operator(self) -> OperatorKit:
        nodes = self._sites("sites")
        return OperatorKit(
            folder=self._folder,
            federation=_name(self._json, "federation"),
            server=self._address("server"),
            authority=self._public("authority"),
            certificate=self._public("certificate"),
            key=self._private("key"),
            signing_key=self._private("signing_key"),
            trusted_key=self._public("trusted_key"),
            sites=tuple(site.name for site in nodes),
            node_keys=nodes,
            devices=self._all_devices(),
            revoked=self._public("revoked"),
        )

    def _devices(self) -> tuple[SiteDevice, ...]:
        def make(json: JsonReader) -> SiteDevice:
            name, number = _name(json, "name"), json.integer("number", 0, MOST_DEVICES - 1)
            certificate = json.text("certificate_sha256")
            if not _SHA256.fullmatch(certificate):
                raise json.wrong("certificate_sha256", certificate)
            return SiteDevice(name, number, certificate)

        return self._each("devices", make, lambda device: (device.name, device.number))

    def _all_devices(self) -> tuple[OperatorDevice, ...]:
        def make(json: JsonReader) -> OperatorDevice:
            number = json.integer("number", 0, MOST_DEVICES - 1)
            return OperatorDevice(_name(json, "name"), number, _name(json, "site"))

        return self._each("devices", make, lambda device: (device.name, device.number))

    def _sites(self, key: str) -> tuple[RegisteredSite, ...]:
        def make(json: JsonReader) -> RegisteredSite:
            return RegisteredSite(_name(json, "name"), _Files(self._folder, json)._public("node_public_key"))

        # a site that was revoked more than once had several keys
        return self._each(key, make, lambda site: (site.node_public_key if key == "revoked" else site.name,))

    def _each(
        self, key: str, make: Callable[[JsonReader], _T], identities: Callable[[_T], tuple[object, ...]]
    ) -> tuple[_T, ...]:
        """What ``make`` reads of each object in the list at ``key``; no two share an identity."""
        made: list[_T] = []
        for index, plain in enumerate(self._json.take(key, list)):
            json = JsonReader(plain, f"{self._json.where}: {key}[{index}]")
            made.append(make(json))
            json.done()
        for same in zip(*map(identities, made), strict=True):
            if len(set(same)) != len(same):
                raise JsonError(f"{self._json.where}: {key} has {_twice(same)!r} twice")
        return tuple(made)

    def _address(self, key: str) -> str:
        text: str = self._json.take(key, str)
        try:
            host_and_port(text)
        except ValueError:
            raise self._json.wrong(key, text) from None
        return text

    def _public(self, key: str) -> Path:
        return self._file(key)[0]

    def _private(self, key: str) -> Path:
        path, mode = self._file(key)
        if mode & 0o077 and os.name == "posix":
            raise KitError(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
        return path

    def _file(self, key: str) -> tuple[Path, int]:
        """A file of the kit and its mode; links are followed within the kit."""
        name: str = self._json.take(key, str)
        if not _PATH.fullmatch(name):
            raise self._json.wrong(key, name)
        path = self._folder / name
        try:
            inside = path.resolve(strict=True).is_relative_to(self._folder)
            found = path.stat()
        except OSError as error:
            raise KitError(f"cannot read {path}: {error.strerror}; copy the kit with all its files") from None
        except RuntimeError:  # a loop of links, before Python 3.13
            raise KitError(f"cannot read {path}: it is a loop of links") from None
        if not inside or not stat.S_ISREG(found.st_mode):
            raise KitError(f"{path} is no file in the kit: it has to be, and not a link to elsewhere")
        if not 0 < found.st_size <= _LARGEST_FILE:
            raise KitError(f"{path} has {found.st_size} bytes: copy the kit again")
        return path, stat.S_IMODE(found.st_mode)


def _name(json: JsonReader, key: str) -> str:
    text: str = json.take(key, str)
    if not is_name(text):
        raise json.wrong(key, text)
    return text


def _twice(values: Sequence[object]) -> object:
    return next(value for index, value in enumerate(values) if value in values[:index])
