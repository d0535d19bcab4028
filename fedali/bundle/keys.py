"""Ed25519 keys that sign bundles: a private one where bundles are made, its public one on every device.

``NAME.key`` is PEM (PKCS 8, not encrypted: whoever can read the file can sign), readable by its owner alone.
``NAME.pub`` is one line, ``fedali-ed25519 <32 bytes in base64> NAME``. Importing this module needs no cryptography.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedali.errors import BundleError, MissingExtraError
from fedali.support.files import flush_folder, reporting, write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KIND = "fedali-ed25519"
_LARGEST = 16384  # bytes of a key file


@dataclass(frozen=True)
class PublicKey:
    """What a device trusts: 32 raw bytes, and a name for people."""

    raw: bytes
    name: str = ""

    @property
    def fingerprint(self) -> str:
        """32 hex digits that tell keys apart: half of the SHA-256 of the raw bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    @property
    def line(self) -> str:
        """The line of a ``.pub`` file."""
        return f"{_KIND} {base64.b64encode(self.raw).decode()} {self.name}".rstrip()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) over ``message`` was made with this key's private half."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ModuleNotFoundError as error:
            raise MissingExtraError("cryptography", "client") from error
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def create(path: Path | str) -> PublicKey:
    """Make a new pair of keys ``path.key`` and ``path.pub``; the last part of ``path`` is the key's name.

    Raises ``BundleError`` when one of the files is there already: a key is never overwritten.
    """
    path = Path(path)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", path.name):
        raise BundleError(
            f"{path.name!r} is no name for a key: use letters, digits, '.', '_' and '-', 64 at most"
        )
    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for there in (private, public):
        if os.path.lexists(there):
            raise BundleError(f"{there} exists already, and keys are never overwritten: choose another name")
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    except ModuleNotFoundError as error:
        raise MissingExtraError("cryptography", "client") from error
    key = Ed25519PrivateKey.generate()
    made = public_of(key, path.name)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with reporting(private):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:  # never readable by others, not even for a moment; and not through somebody's link
            handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise BundleError(f"{private} exists already, and keys are never overwritten") from None
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(pem)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            private.unlink(missing_ok=True)
            raise
    write_text(public, made.line + "\n")
    flush_folder(path.parent)
    return made


def public_of(key: Ed25519PrivateKey, name: str = "") -> PublicKey:
    """The public half of a private key."""
    return PublicKey(key.public_key().public_bytes_raw(), name)


def load_public(path: Path | str) -> PublicKey:
    """The key in a ``.pub`` file; ``BundleError`` when it holds none."""
    data = _read(Path(path), "public key")
    if b"PRIVATE KEY" in data:
        raise BundleError(
            f"{path} is a private key: a device gets the .pub file beside it, and never this one"
        )
    try:
        words = data.decode("ascii").split()
        kind, text = words[:2]
        raw = base64.b64decode(text, validate=True)
        if kind != _KIND or len(raw) != 32 or len(words) > 3 or len(data.strip().splitlines()) != 1:
            raise ValueError
    except (ValueError, binascii.Error):
        raise BundleError(
            f"{path} is no public key: it has to be one line, '{_KIND} <base64> NAME', as `fedali keys create` writes"
        ) from None
    return PublicKey(raw, words[2] if len(words) == 3 else "")


def load_private(path: Path | str) -> Ed25519PrivateKey:
    """The key in a ``.key`` file; ``BundleError`` when it holds none, or others may read it."""
    path = Path(path)
    data = _read(path, "private key")
    if data.startswith(_KIND.encode()):
        raise BundleError(f"{path} is a public key: signing takes the .key file beside it")
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise BundleError(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError as error:
        raise MissingExtraError("cryptography", "client") from error
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise BundleError(f"{path} is encrypted; keys of `fedali keys create` are not") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BundleError(f"{path} is no private key: make one with `fedali keys create NAME`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(
            f"{path} is a key of another kind, not Ed25519: make one with `fedali keys create NAME`"
        )
    return key


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise BundleError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise BundleError(f"{path} is no {what}: it is larger than {_LARGEST} bytes")
    return data
