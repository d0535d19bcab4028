"""A bundle: one signed file with everything a device needs to train and predict, and nothing that can surprise it.

``read_bundle`` takes a bundle for what an attacker made until its signature says otherwise: nothing in it reaches a
parser before the checks that come first have passed, and nothing is ever unpickled, imported or executed by reading.
``docs/bundle.md`` describes the format.

>>> from fedali.bundle.keys import load_public
>>> bundle = read_bundle("model.fedali", [load_public("site.pub")])     # doctest: +SKIP
>>> bundle.manifest.classes, len(bundle.parts["train.onnx"])            # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedali.bundle import archive
from fedali.bundle.keys import PublicKey, public_of
from fedali.bundle.manifest import FORMAT, LARGEST_MANIFEST, PARTS, BundlePart, Manifest
from fedali.bundle.manifest_reader import read_manifest
from fedali.bundle.onnx_scan import scan
from fedali.bundle.signatures import check_signatures, gate_shape
from fedali.errors import BundleError, MissingExtraError
from fedali.support.files import write_bytes
from fedali.version import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LARGEST = 512 << 20  # bytes of a bundle
SIGNED_PREFIX = b"fedali bundle v1\n"  # a signature over a bundle is one over nothing else
_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_ENTRIES = (_MANIFEST, _SIGNATURE, *PARTS)
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read, or written, and checked.

    Args:
        manifest: what it says of itself.
        parts: its files by name: ``train.onnx``, ..., ``state.safetensors``.
        digest: SHA-256 of the manifest in hex; it names the bundle, since the manifest has the hashes of all parts.
        signed_by: the fingerprint of the trusted key that signed it; None when no signature was verified.
    """

    manifest: Manifest
    parts: dict[str, bytes]
    digest: str
    signed_by: str | None

    def state(self) -> dict[str, Vector]:
        """The initial state, copied: ``theta`` [P], ``local_prototypes`` [L], ``shared_theta`` [P], ``shared_prototypes`` [L].

        Of a client that answers by a gate of its own, also ``own`` [K, d] and ``gate`` [2], the middle and the spread of its score.
        """
        return _state(self.parts["state.safetensors"])


def write_bundle(
    path: Path | str,
    manifest_fields: Mapping[str, Any],
    parts: Mapping[str, bytes],
    key: Ed25519PrivateKey | None,
) -> Bundle:
    """Write a bundle, atomically; the same arguments give the same bytes.

    Args:
        path: of the file, which is replaced.
        manifest_fields: attributes of ``Manifest``; ``format``, ``fedali``, ``parts`` and, unless given, ``created`` are
            filled in here.
        parts: files by name.
        key: to sign with; None leaves the bundle unsigned, which devices refuse unless told otherwise.

    Raises ``BundleError`` for what ``read_bundle`` would refuse.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise BundleError(f"a bundle has no part {unknown[0]!r}; known: {', '.join(PARTS)}")
    ordered = {name: parts[name] for name in PARTS if name in parts}
    filled = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **manifest_fields,
        "format": FORMAT,
        "fedali": __version__,
        "parts": {name: BundlePart(_sha256(data), len(data)) for name, data in ordered.items()},
    }
    manifest = Manifest(**filled).to_json()
    signature = {} if key is None else {_SIGNATURE: key.sign(SIGNED_PREFIX + manifest)}
    data = archive.pack({_MANIFEST: manifest, **signature, **ordered})
    trusted = None if key is None else [public_of(key)]
    bundle = parse_bundle(data, trusted, allow_unsigned=key is None, where=str(path))
    write_bytes(Path(path), data)
    return bundle


def read_bundle(
    path: Path | str, trusted: Sequence[PublicKey] | None, *, allow_unsigned: bool = False
) -> Bundle:
    """Read and check a bundle.

    Args:
        path: of the file.
        trusted: keys whose signature counts.
        allow_unsigned: accept a bundle without a signature, and without ``trusted`` keys one whose signature cannot be
            verified. Its checksums then find accidents, and no attacker.

    Raises ``BundleError`` for a bundle that is damaged, unsigned, signed by another key, altered, or anything but what
    this module writes.
    """
    try:
        with Path(path).open("rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise BundleError(f"{path} is no file")
            if facts.st_size > LARGEST:
                raise BundleError(_too_large(str(path)))
            data = stream.read(facts.st_size + 1)  # what grew meanwhile has no room, and fails its checks
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_bundle(data, trusted, allow_unsigned=allow_unsigned, where=str(path))


def parse_bundle(
    data: bytes,
    trusted: Sequence[PublicKey] | None,
    *,
    allow_unsigned: bool = False,
    where: str = "the bundle",
) -> Bundle:
    """``read_bundle`` of bytes at hand, as they come over a network."""
    if len(data) > LARGEST:
        raise BundleError(_too_large(where))
    entries = archive.unpack(data, _ENTRIES, where)
    if _MANIFEST not in entries:
        raise BundleError(f"{where} is no bundle: it has no {_MANIFEST}")
    text = entries.pop(_MANIFEST)
    if len(text) > LARGEST_MANIFEST:
        raise BundleError(f"{where} is refused: its manifest is larger than {LARGEST_MANIFEST} bytes")
    signed_by = _signer(text, entries.pop(_SIGNATURE, None), trusted, allow_unsigned, where)
    try:
        manifest = read_manifest(text)
        _check_parts(manifest, entries)
        scans = {
            name.removesuffix(".onnx"): scan(content, name)
            for name, content in entries.items()
            if name.endswith(".onnx")
        }
        check_signatures(manifest, scans)
        _check_state(manifest, entries["state.safetensors"])
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    return Bundle(manifest, entries, _sha256(text), signed_by)


def _signer(
    manifest: bytes,
    signature: bytes | None,
    trusted: Sequence[PublicKey] | None,
    allow_unsigned: bool,
    where: str,
) -> str | None:
    """The fingerprint of the trusted key that signed; None where that is allowed."""
    if signature is None:
        if allow_unsigned:
            return None
        raise BundleError(
            f"{where} is refused: it is not signed. Sign it (fedali export --key), or allow unsigned bundles explicitly"
        )
    if not trusted:
        if allow_unsigned:
            return None
        raise BundleError(
            f"{where} is refused: no trusted key was given to verify its signature with. Name the .pub file of the "
            "one who made it"
        )
    if len(signature) == 64:
        for key in trusted:
            if key.verifies(signature, SIGNED_PREFIX + manifest):
                return key.fingerprint
    names = ", ".join(f"{key.name or 'unnamed'} {key.fingerprint[:8]}" for key in trusted)
    raise BundleError(
        f"{where} is refused: its signature is not one of a trusted key ({names}); it was made with another key, or "
        "altered since"
    )


def _check_parts(manifest: Manifest, found: Mapping[str, bytes]) -> None:
    for name in manifest.parts.keys() ^ found.keys():
        raise BundleError(f"{name} is missing, or not in the manifest")
    for name, part in manifest.parts.items():
        if len(found[name]) != part.bytes or _sha256(found[name]) != part.sha256:
            raise BundleError(f"{name} is not what the manifest says: it was altered, or damaged")


def _check_state(manifest: Manifest, data: bytes) -> None:
    parameters, prototypes = manifest.layouts.parameters.size, manifest.layouts.prototypes.size
    wanted: dict[str, tuple[int, ...]] = {
        "theta": (parameters,),
        "local_prototypes": (prototypes,),
        "shared_theta": (parameters,),
        "shared_prototypes": (prototypes,),
    }
    found = _state(data)
    if manifest.answers_by == "gate" and ("own" in found or "gate" in found):
        wanted |= {"own": gate_shape(manifest), "gate": (2,)}
    if found.keys() != wanted.keys():
        raise BundleError(
            f"state.safetensors holds {', '.join(sorted(found))[:200]}, not {', '.join(wanted)}"
        )
    for name, shape in wanted.items():
        value = found[name]
        if value.dtype != np.float32 or value.shape != shape:
            raise BundleError(
                f"state.safetensors: {name} is {value.dtype} {list(value.shape)}, not float32 {list(shape)}"
            )
        if not np.isfinite(value).all():
            raise BundleError(f"state.safetensors: {name} has values that are not finite")
    if "gate" in found and not found["gate"][1] > 0:
        raise BundleError(
            f"state.safetensors: the gate's spread is {found['gate'][1]:g}; it has to be above 0"
        )


def _state(data: bytes) -> dict[str, Vector]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ModuleNotFoundError as error:
        raise MissingExtraError("safetensors", "client") from error
    try:
        found = dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"state.safetensors cannot be read: {str(error).splitlines()[0][:200]}") from None
    for name in ("theta", "local_prototypes"):  # what the server sent, where a client has just that
        shared = f"shared_{name.removeprefix('local_')}"
        if name in found and shared not in found:
            found[shared] = found[name].copy()
    return found


def _too_large(where: str) -> str:
    return f"{where} is refused: it is larger than {LARGEST >> 20} MiB"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
