"""Where a SuperLink is, and how it is trusted."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from fedali.errors import SettingsError
from fedali.wire.kit import OperatorKit


@dataclass(frozen=True)
class Link:
    """A SuperLink's address, and the certificates that say which one is trusted.

    Args:
        address: ``HOST:PORT``.
        root_certificates: PEM file of the authority that signed the SuperLink's certificate. Without one the connection
            is not encrypted, which is allowed on the loopback interface alone.
        certificate: PEM file of the certificate that says who we are, where the server asks for one.
        key: PEM file of its private key.

    Raises ``SettingsError`` for an address that is none, one of another machine without certificates, or a file that
    holds none.
    """

    address: str
    root_certificates: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of_operator(cls, kit: OperatorKit) -> Link:
        """The link of an operator to the port for operators."""
        return cls(kit.server, kit.authority, kit.certificate, kit.key)

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingsError(f"{self.address!r} is no address; for example 127.0.0.1:9092")
        if self.root_certificates is not None:
            self._check_certificates(self.root_certificates)
            self.context()
        elif not is_loopback(host):
            raise SettingsError(
                f"{host} is another machine: give --root-certificates, or reach it through a tunnel at 127.0.0.1"
            )

    @property
    def insecure(self) -> bool:
        """Whether the connection is not encrypted."""
        return self.root_certificates is None

    def context(self) -> ssl.SSLContext:
        """How to encrypt: TLS 1.2 or newer, this server alone is trusted, and our own certificate if there is one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(self.root_certificates)
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                why = error.strerror or error.reason if isinstance(error, ssl.SSLError) else error.strerror
                raise SettingsError(f"cannot use {self.certificate} with {self.key}: {why}") from None
        return context

    @staticmethod
    def _check_certificates(path: Path) -> None:
        try:
            ssl.create_default_context(cafile=str(path))
        except OSError as error:
            why = error.strerror if isinstance(error, FileNotFoundError) else "it holds no PEM certificate"
            raise SettingsError(f"cannot use {path} as root certificates: {why}") from None


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine's own interface, which nobody else can listen on.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "[::1]", "10.0.0.1", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
