"""Taking trust back: from a device by the signed list, from a site by its key at the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fedali.bundle import keys
from fedali.errors import KitError, SettingsError, did_you_mean
from fedali.support.files import reporting
from fedali_server.provisioning.certificates import RevocationList
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.kits import write_kits
from fedali_server.provisioning.provision import CONFIG, REVOKED
from fedali_server.provisioning.register import FILE, Register, locked


@dataclass(frozen=True)
class Revoked:
    """What was revoked, and which kits have the news."""

    name: str
    kind: str
    """``device`` or ``site``."""
    site: str
    """Of a device."""
    number: int
    """Of the signed list."""
    changed: tuple[str, ...]
    """Names of members whose kits were changed."""


def revoke(name: str, kits: Path | str) -> Revoked:
    """Revoke a device or a site.

    A device's certificates, earlier ones too, go on the signed list, which is in the kits of the operator and of sites.
    A site's key goes from the server's kit, so that the server refuses it.

    Args:
        name: of the device or site; also of one that is not in the federation any more.
        kits: folder that ``provision`` made.

    Raises ``SettingsError`` for a name that is not known, ``KitError`` when it is revoked already, or ``kits`` are none.
    """
    kits = Path(kits)
    authority = kits / "authority"
    if not (authority / FILE).is_file():
        raise KitError(f"{kits} has no authority/{FILE}: give the folder that `fedali provision` made")
    with locked(authority):
        register, config = Register.load(authority), _config(authority)
        known = [each for each, member in register.members.items() if member.kind in ("site", "device")]
        if name in ("operator", "server"):
            raise SettingsError(f"{name} is not revoked but replaced: fedali provision FILE --renew {name}")
        if name not in known:
            raise SettingsError(f"nobody is called {name!r}; {did_you_mean(name, known)}")
        member = register.members[name]
        if member.revoked:
            raise KitError(f"{name} is revoked already")
        listed = RevocationList.read(authority / REVOKED, keys.load_public(authority / f"{config.name}.pub"))
        if member.kind == "device":
            listed = _signed(listed, {member.sha256, *member.former}, kits, config.name)
            listed.save(authority / REVOKED)
            register.change(name, revoked=True)
        else:
            register.change(
                name, revoked=True, revoked_node_keys=(*member.revoked_node_keys, member.node_key)
            )
        register.save(authority)
        changed, _ = write_kits(config, kits, register)
    return Revoked(name, member.kind, member.site, listed.number, tuple(changed))


def _signed(former: RevocationList, revoked: set[str], kits: Path, federation: str) -> RevocationList:
    key = kits / "operator" / f"{federation}.key"
    if not key.exists():
        raise KitError(f"{key} is not here: it signs the list; bring the operator's kit back for this")
    return RevocationList.sign(former.number + 1, former.revoked | revoked, keys.load_private(key))


def _config(authority: Path) -> FederationConfig:
    path = authority / CONFIG
    with reporting(path, "read"):
        text = path.read_text("utf-8")
    try:
        return FederationConfig.model_validate_json(text)
    except ValidationError:
        raise KitError(f"{path} is broken: run `fedali provision` again") from None
