"""``federation.toml``: who takes part in a federation, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from fedali.wire.kit import MOST_DEVICES, host_and_port, is_name
from fedali_server.settings import Settings, read_settings

RESERVED = ("server", "operator", "authority")

EXAMPLE = """\
# Who takes part in a federation, and where. Make the start-up kits of all with
#
#   fedali provision federation.toml --out kits/
#
# Run it again after adding sites or devices: what was made stays, what is new is added.

name = "wards"                            # small letters, digits and '-'; in every certificate

# certificate_days = 730                  # before a certificate has to be renewed: fedali provision ... --renew NAME
# authority_days = 3650                   # before the whole federation has to be provisioned anew

[server]
address = "fl.example.org:9092"           # where sites find it
# listen = "0.0.0.0:9092"                 # where it listens for sites
# Where trainings are submitted, with an operator's certificate. Without these lines: on the server's own machine alone.
# operators_address = "fl.example.org:9093"
# operators_listen = "0.0.0.0:9093"

[[sites]]
name = "hospital-a"
address = "gateway.hospital-a.example:9443"   # where its devices find it
# listen = "0.0.0.0:9443"
devices = ["a-bed-1", "a-bed-2", "a-bed-3"]   # names: no data about persons, they are written to logs

[[sites]]
name = "hospital-b"
address = "10.20.0.5:9443"
devices = ["b-bed-1", "b-bed-2", "b-bed-3"]
"""


def _named(text: str) -> str:
    if not is_name(text):
        raise ValueError(
            f"{text!r} is no name here: use small letters, digits and '-', a letter or digit at both ends, 40 at most"
        )
    if text in RESERVED:
        raise ValueError(f"{text!r} has a meaning of its own: choose another name")
    return text


def _addressed(text: str) -> str:
    host_and_port(text)
    return text


Name = Annotated[str, AfterValidator(_named)]
Address = Annotated[str, AfterValidator(_addressed)]


def _everywhere(plain: dict[str, Any], listen: str, address: str) -> None:
    """Without ``listen``: every interface, at the port of ``address``."""
    if listen not in plain and isinstance(plain.get(address), str):
        host, _, port = plain[address].rpartition(":")
        plain[listen] = f"[::]:{port}" if host.startswith("[") else f"0.0.0.0:{port}"


class ServerSettings(Settings):
    """The server, that sites connect to."""

    address: Address
    """HOST:PORT where sites find it; its certificate is for this host."""
    listen: Address = ""
    """HOST:PORT where it listens for sites; without, every interface at the address' port."""
    operators_address: Address = "127.0.0.1:9093"
    """HOST:PORT where operators find it; its certificate is for this host too."""
    operators_listen: Address = ""
    """HOST:PORT where it listens for operators; without, the loopback interface where the address is of it."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, plain: Any) -> Any:
        if isinstance(plain, dict):
            plain = {"operators_address": "127.0.0.1:9093", **plain}
            _everywhere(plain, "listen", "address")
            operators = plain["operators_address"]
            if isinstance(operators, str) and operators.startswith(("127.", "[::1]", "localhost")):
                plain.setdefault("operators_listen", operators)
            _everywhere(plain, "operators_listen", "operators_address")
        return plain

    @model_validator(mode="after")
    def _apart(self) -> ServerSettings:
        if host_and_port(self.listen)[1] == host_and_port(self.operators_listen)[1]:
            raise ValueError(
                f"listen {self.listen} and operators_listen {self.operators_listen} need different ports"
            )
        return self


class SiteSettings(Settings):
    """A site, that its devices connect to."""

    name: Name
    address: Address
    """HOST:PORT where its devices find the gateway; its certificate is for this host."""
    listen: Address = ""
    """HOST:PORT where the gateway listens; without, every interface at the address' port."""
    devices: tuple[Name, ...] = ()
    """Names; written to logs."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, plain: Any) -> Any:
        if isinstance(plain, dict):
            plain = dict(plain)
            _everywhere(plain, "listen", "address")
        return plain


class FederationConfig(Settings):
    """A federation: one server, its sites, their devices."""

    name: Name
    certificate_days: int = Field(default=730, ge=1, le=36500)
    """Before a certificate has to be renewed."""
    authority_days: int = Field(default=3650, ge=1, le=36500)
    """Before the whole federation has to be provisioned anew."""
    server: ServerSettings
    sites: tuple[SiteSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> FederationConfig:
        seen: dict[str, str] = {}
        for name, what in self._named():
            if name in seen:
                raise ValueError(f"{name!r} is the name of {seen[name]} and of {what}: names have to differ")
            seen[name] = what
        if sum(len(site.devices) for site in self.sites) > MOST_DEVICES:
            raise ValueError(f"more than {MOST_DEVICES} devices")
        if self.certificate_days > self.authority_days:
            raise ValueError("certificate_days cannot be more than authority_days")
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        for site in self.sites:
            yield site.name, "a site"
            for device in site.devices:
                yield device, f"a device of {site.name}"


def read_federation(path: Path | str) -> FederationConfig:
    """The federation that a file describes; ``SettingsError`` of one line when it makes no sense."""
    return read_settings(FederationConfig, path)
