"""Who calls: a device is what its certificate says, as long as the site knows that certificate and nobody revoked it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import grpc
import structlog

from fedali.bundle.keys import PublicKey
from fedali.errors import FedaliError, KitError
from fedali.support.files import flush_folder
from fedali.wire.kit import SiteDevice
from fedali_server.gateway.refusal import Refusal, not_allowed
from fedali_server.provisioning.certificates import Identity, RevocationList, identity

log = structlog.get_logger("fedali.gateway")


class Roster:
    """The devices of a site, and which of their certificates are revoked.

    Args:
        devices: that the site has.
        trusted: whose signature a list of revoked certificates needs.
        kit_list: the list as the site's kit has it; it is read again when the file was replaced.
        own_list: where the newest list is kept.
    """

    def __init__(
        self, devices: tuple[SiteDevice, ...], trusted: PublicKey, kit_list: Path, own_list: Path
    ) -> None:
        self._by_certificate = {device.certificate_sha256: device for device in devices}
        self._trusted, self._kit_list, self._own_list = trusted, kit_list, own_list
        self._list = RevocationList.read(kit_list, trusted)
        self._kit_seen = _stamp(kit_list)
        if own_list.exists():
            own = RevocationList.read(own_list, trusted)
            self._list = max(self._list, own, key=lambda each: each.number)

    @property
    def number(self) -> int:
        """Of the list of revoked certificates in force."""
        return self._list.number

    def revoked(self, device: SiteDevice) -> bool:
        """Whether a device's certificate is not to be trusted any more."""
        return device.certificate_sha256 in self._list.revoked

    def replace(self, text: bytes, signature: bytes) -> int:
        """Put a newer list in force, durably; an older one changes nothing. The number of the one in force.

        Raises ``KitError`` for a list that the federation's key did not sign.
        """
        self._put(RevocationList.parse(text, signature, self._trusted))
        return self.number

    def look(self) -> None:
        """Take up the kit's list if that file was replaced."""
        stamp = _stamp(self._kit_list)
        if stamp == self._kit_seen:
            return
        self._kit_seen = stamp
        try:
            self._put(RevocationList.read(self._kit_list, self._trusted))
        except FedaliError as error:
            log.error("the kit's revocation list is not used", why=str(error))

    def _put(self, new: RevocationList) -> None:
        if new.number > self.number:
            new.save(self._own_list)
            flush_folder(self._own_list.parent)
            self._list = new
            log.info("revocation list", number=new.number, revoked=len(new.revoked))

    def who(self, peer: Mapping[str, object]) -> SiteDevice:
        """The device that ``ServicerContext.auth_context()`` speaks of. Raises ``Refusal``."""
        certificates = peer.get("x509_pem_cert")
        if not isinstance(certificates, tuple | list) or len(certificates) != 1:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "no certificate: a device needs its kit's")
        try:
            found = _identity(bytes(certificates[0]))
        except KitError as error:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from None
        device = self._by_certificate.get(found.sha256)
        if device is None or found.kind != "device" or device.name != found.name:
            raise not_allowed(
                "this site has no device with this certificate; is it another site's, or an old one?"
            )
        if self.revoked(device):
            raise not_allowed("this device's certificate is revoked")
        if datetime.now(timezone.utc) > found.expires:
            raise not_allowed("this device's certificate has expired: provision it anew")
        return device


@lru_cache(maxsize=4096)
def _identity(pem: bytes) -> Identity:
    return identity(pem)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size
