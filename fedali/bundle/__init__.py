"""Bundles: one signed file with all that a device needs; keys, manifest, and the checks of what comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.bundle.file import Bundle as Bundle
    from fedali.bundle.file import parse_bundle as parse_bundle
    from fedali.bundle.file import read_bundle as read_bundle
    from fedali.bundle.file import write_bundle as write_bundle
    from fedali.bundle.keys import PublicKey as PublicKey
    from fedali.bundle.keys import load_public as load_public
    from fedali.bundle.manifest import Manifest as Manifest

_HOMES = {
    "Bundle": "file",
    "read_bundle": "file",
    "parse_bundle": "file",
    "write_bundle": "file",
    "Manifest": "manifest",
    "PublicKey": "keys",
    "load_public": "keys",
}

__all__ = ["Bundle", "Manifest", "PublicKey", "load_public", "parse_bundle", "read_bundle", "write_bundle"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
