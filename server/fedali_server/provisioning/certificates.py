"""Certificates of a federation: making them, telling whom one stands for, and the list of those revoked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedali.bundle.json_reader import JsonError, read_json
from fedali.bundle.keys import PublicKey
from fedali.errors import KitError
from fedali.support.files import reporting, write_text

BACKDATED = timedelta(
    days=1
)  # a certificate is good from a day before it was made: clocks of devices are wrong
_SCHEME = "fedali"
_LARGEST_LIST = 16 << 20  # bytes


@dataclass(frozen=True)
class Identity:
    """Whom a certificate stands for."""

    federation: str
    kind: str
    """``device``, ``site``, ``server`` or ``operator``."""
    name: str
    sha256: str
    """Of the certificate in DER, 64 hex digits."""
    expires: datetime
    """Aware, in UTC."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as PEM, PKCS 8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(name: str, now: datetime, days: int) -> Pair:
    """A new authority that signs certificates, none of which is an authority.

    Args:
        name: for people.
        now: aware.
        days: that it is good for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return Pair(builder.sign(key, SHA256()), key)


def issue(
    authority: Pair,
    federation: str,
    kind: str,
    name: str,
    *,
    hosts: Iterable[str] = (),
    now: datetime,
    days: int,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Pair:
    """A new certificate of ``name``.

    Args:
        authority: that signs.
        federation: its name.
        kind: of what the certificate stands for, see ``Identity``.
        name: common name, and the end of the URI ``fedali://<federation>/<kind>/<name>`` among the subject's other names.
        hosts: names and addresses that it is a server under; without any it is a client's.
        now: aware; the certificate is good from ``BACKDATED`` before.
        days: that it is good for from now, at most as long as the authority's.
        key: that it is for; a new one without.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    hosts = tuple(hosts)
    uri: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"{_SCHEME}://{federation}/{kind}/{name}")]
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = authority.certificate
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, issuer.subject, key, now, days, issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.SubjectAlternativeName([*map(_host, hosts), *uri]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    return Pair(builder.sign(authority.key, SHA256()), key)


def is_issued_by(certificate: x509.Certificate, authority: Pair) -> bool:
    """Whether an authority signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def load_pair(certificate: Path, key: Path) -> Pair:
    """The certificate and private key in two PEM files; ``KitError`` when they are none, or not of each other."""
    pair = Pair(load_certificate(certificate), load_key(key))
    if pair.key.public_key() != pair.certificate.public_key():
        raise KitError(f"{key} is not the key of {certificate}")
    return pair


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file; ``KitError`` when it holds none of our kind."""
    with reporting(path, "read"):
        data = path.read_bytes()
    try:
        key: object = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KitError(f"{path} is no private key of `fedali provision`")
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file; ``KitError`` when it holds none."""
    with reporting(path, "read"):
        data = path.read_bytes()
    return parse_certificate(data, str(path))


def parse_certificate(pem: bytes, where: str = "the certificate") -> x509.Certificate:
    """The first certificate of PEM text; ``KitError`` when it holds none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise KitError(f"{where} holds no PEM certificate") from None


def fingerprint(certificate: x509.Certificate | bytes) -> str:
    """SHA-256 of a certificate in DER, 64 hex digits; ``bytes`` are PEM."""
    if isinstance(certificate, bytes):
        certificate = parse_certificate(certificate)
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def identity(certificate: x509.Certificate | bytes) -> Identity:
    """Whom a certificate stands for, which says nothing about whether it is to be trusted; ``bytes`` are PEM.

    Raises ``KitError`` for a certificate that is not one of a federation.
    """
    if isinstance(certificate, bytes):
        certificate = parse_certificate(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        scheme, _, rest = uri.partition("://")
        federation, kind, name = rest.split("/")
        (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if scheme != _SCHEME or common.value != name or not federation or not name:
            raise ValueError
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise KitError("the certificate is not one of a federation: `fedali provision` makes them") from None
    return Identity(federation, kind, name, fingerprint(certificate), certificate.not_valid_after_utc)


@dataclass(frozen=True)
class RevocationList:
    """Certificates that are not to be trusted any more, signed by the federation's key.

    ``text`` is what was signed: UTF-8 JSON with ``number``, which grows, and ``revoked``, fingerprints in order.
    """

    text: bytes
    signature: bytes
    number: int
    revoked: frozenset[str]

    @staticmethod
    def sign(number: int, revoked: Iterable[str], key: Ed25519PrivateKey) -> RevocationList:
        """A new list.

        Args:
            number: one more than the last list's.
            revoked: fingerprints, see ``fingerprint``.
            key: the federation's, that bundles are signed with.
        """
        revoked = sorted(set(revoked))
        text = json.dumps({"number": number, "revoked": revoked}).encode()
        return RevocationList(text, key.sign(text), number, frozenset(revoked))

    @staticmethod
    def parse(
        text: bytes, signature: bytes, key: PublicKey, where: str = "the revocation list"
    ) -> RevocationList:
        """The list in ``text``, once its signature was verified; ``KitError`` when it is not ``key``'s, or no list."""
        if len(text) > _LARGEST_LIST or len(signature) != 64 or not key.verifies(signature, text):
            raise KitError(f"{where} is not signed by the key {key.fingerprint}")
        try:
            reader = read_json(text, where)
            number = reader.integer("number", 0, (1 << 53) - 1)
            revoked = reader.take("revoked", list)
            reader.done()
            for each in revoked:
                if not isinstance(each, str) or len(each) != 64 or set(each) - set("0123456789abcdef"):
                    raise reader.wrong("revoked", each)
        except JsonError as error:
            raise KitError(str(error)) from None
        return RevocationList(text, signature, number, frozenset(revoked))

    @staticmethod
    def read(path: Path, key: PublicKey) -> RevocationList:
        """The list in a file that ``save`` wrote; ``KitError`` when it is broken or not signed by ``key``."""
        with reporting(path, "read"), path.open("rb") as stream:
            data = stream.read(2 * _LARGEST_LIST + 1)
        try:
            reader = read_json(data, str(path))
            text, signature = reader.take("list", str), reader.take("signature", str)
            reader.done()
            raw = text.encode(), base64.b64decode(signature, validate=True)
        except (JsonError, UnicodeEncodeError, binascii.Error, ValueError) as error:
            raise KitError(f"{path} is no revocation list: {error}") from None
        return RevocationList.parse(*raw, key, str(path))

    def save(self, path: Path) -> None:
        """Write the list and its signature to a file, atomically."""
        plain = {"list": self.text.decode(), "signature": base64.b64encode(self.signature).decode()}
        write_text(path, json.dumps(plain, indent=1) + "\n")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = now.astimezone(timezone.utc)
    until = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(until, latest) if latest else until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
