"""The keys that a SuperLink knows sites by: as kits hold them, and as Flower wants them."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from fedali.errors import KitError


def read_node_key(path: Path) -> bytes:
    """A node's public key in OpenSSH's format, as Flower names the node by it: PEM.

    Raises ``KitError`` for a file that holds none.
    """
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise KitError(f"cannot read the node key {path}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KitError(f"{path} is no ECDSA key; make one: ssh-keygen -t ecdsa -b 384")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
