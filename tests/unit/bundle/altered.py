"""Bundles that were altered, packed and signed again, and that they are refused."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedali.bundle import archive
from fedali.bundle.file import SIGNED_PREFIX, parse_bundle
from fedali.bundle.keys import public_of
from fedali.errors import BundleError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = [public_of(KEY, "site")]
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def signed(entries, key=KEY):
    """Entries in a bundle with a manifest that is signed as it is, whatever it says."""
    entries = {name: data for name, data in entries.items() if name != "manifest.sig"}
    manifest = entries.pop("manifest.json")
    signature = {"manifest.sig": key.sign(SIGNED_PREFIX + manifest)} if key else {}
    return {"manifest.json": manifest, **signature, **entries}


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(entries, **options):
    """The same by Python's own zip writer, for files that ``fedali.bundle.archive`` would not write."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file:
        for name, data in entries.items():
            file.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), data)
    return stream.getvalue()


def refused(data, words, trusted=TRUSTED, **options):
    with pytest.raises(BundleError, match=words) as caught:
        parse_bundle(data, trusted, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def altered(data, change, part=None):
    """A bundle whose manifest was changed and signed by the trusted key: only what comes after the signature sees it."""
    entries = entries_of(data)
    if part is not None:
        name, content = part
        entries[name] = content
        facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = json.loads(entries["manifest.json"])
    if part is not None:
        manifest["parts"][name] = facts
    found = change(manifest)
    manifest = manifest if found is None else found
    entries["manifest.json"] = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return archive.pack(signed(entries))
