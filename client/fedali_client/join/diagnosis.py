"""Why a gateway does not answer, found by one connection without gRPC, whose own words are of no help to anybody."""

from __future__ import annotations

import socket
import ssl
import time
from datetime import datetime, timezone

from fedali.errors import KitError
from fedali.wire.kit import DeviceKit, host_and_port
from fedali_client.join.signals import AwayError

_SECONDS = 10.0
_AGAIN = 1.0  # seconds
_REFUSALS = {  # what TLS calls them -> what they mean
    "UNKNOWN_CA": "its certificate is of another federation",
    "BAD_CERTIFICATE": "its certificate is of another federation, or damaged",
    "CERTIFICATE_UNKNOWN": "its certificate is not accepted",
    "CERTIFICATE_EXPIRED": "its certificate has expired, or one of the two clocks is wrong",
    "CERTIFICATE_REVOKED": "its certificate is revoked",
    "CERTIFICATE_REQUIRED": "it showed no certificate",
    "UNSUPPORTED_CERTIFICATE": "its certificate is none of a device",
    "DECRYPT_ERROR": "its key does not belong to its certificate",
}
_NOT_YET_VALID, _EXPIRED = 9, 10  # of OpenSSL's verification


def explain(kit: DeviceKit, failure: str) -> AwayError | KitError:
    """What is wrong between this device and its gateway, now.

    ``KitError`` for what will not pass by itself: the kit's files do not fit, or the gateway, whose certificate is sound,
    says that it refuses this device's. ``AwayError`` for everything else; ``failure`` is what a call failed with.
    """
    where = kit.gateway
    try:
        context = _context(kit)
    except (OSError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        return KitError(
            f"the certificate and the key in {kit.folder} do not work together ({reason}); copy the kit again"
        )
    try:
        if _speaks(kit, context):
            return AwayError(f"the gateway {where} is there, and calls fail: {failure or 'no reason given'}")
        time.sleep(_AGAIN)  # it may just have been stopping
        if _speaks(kit, context):
            return AwayError(f"the gateway {where} has just come back")
        return AwayError(
            f"the gateway {where} hangs up on this device: {_lifetime(kit)}; ask for a new kit", stranger=True
        )
    except ssl.SSLCertVerificationError as error:
        return _stranger(kit, error)
    except ssl.SSLError as error:
        for name, meaning in _REFUSALS.items():
            if f"ALERT_{name}" in (error.reason or ""):
                return KitError(f"the gateway {where} refuses this device: {meaning}; ask for a new kit")
        return AwayError(f"no gateway answers at {where}: TLS fails ({error.reason})")
    except socket.gaierror:
        return AwayError(f"no gateway at {where}: there is no such host name, or no network")
    except ConnectionRefusedError:
        return AwayError(f"no gateway at {where}: nobody listens there")
    except TimeoutError:
        return AwayError(f"no gateway at {where}: no answer in {_SECONDS:g} seconds")
    except OSError as error:
        return AwayError(f"no gateway at {where}: {error.strerror or error}")


def _speaks(kit: DeviceKit, context: ssl.SSLContext) -> bool:
    """Whether the gateway, once each has seen the other's certificate, says anything instead of hanging up."""
    with (
        socket.create_connection(host_and_port(kit.gateway), timeout=_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=kit.gateway_name) as secure,
    ):
        return bool(secure.recv(1))


def _lifetime(kit: DeviceKit) -> str:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        until = load_pem_x509_certificate(kit.certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return "its certificate cannot be read"
    if until < datetime.now(timezone.utc):
        return f"its certificate has expired on {until:%Y-%m-%d}"
    return "its certificate is of another federation, or not accepted any more"


def _context(kit: DeviceKit) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(kit.authority)
    context.load_cert_chain(kit.certificate, kit.key)
    context.set_alpn_protocols(["h2"])
    return context


def _stranger(kit: DeviceKit, error: ssl.SSLCertVerificationError) -> AwayError:
    where = kit.gateway
    if error.verify_code == _NOT_YET_VALID:
        return AwayError(
            f"the certificate of the gateway {where} is not valid yet: is this device's clock right?"
        )
    if error.verify_code == _EXPIRED:
        return AwayError(
            f"the certificate of the gateway {where} has expired: is this device's clock right? Else the site needs a new kit"
        )
    if "match" in error.verify_message.lower():
        why = f"its certificate is not one of {kit.gateway_name}"
    else:
        why = f"its certificate is not one of the federation {kit.federation} ({error.verify_message})"
    return AwayError(f"what answers at {where} is not this device's gateway: {why}", stranger=True)
