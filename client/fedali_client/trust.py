"""Which keys a device trusts: those it is given, and those it was given before with the same state folder."""

from __future__ import annotations

from pathlib import Path

from fedali.bundle.file import Bundle, read_bundle
from fedali.bundle.keys import PublicKey, load_public
from fedali.errors import BundleError
from fedali.support.files import write_text

_FOLDER = "trusted"


def open_bundle(
    path: Path, root: Path | None, trusted_key: Path | None, *, allow_unsigned: bool, remember: bool
) -> Bundle:
    """The bundle at ``path``, signed by ``trusted_key`` or, without one, by a key that ``root`` remembers.

    Args:
        path: of the bundle.
        root: of all state folders; None for none.
        trusted_key: a ``.pub`` file.
        allow_unsigned: accept a bundle without a signature, and without any key one that cannot be verified.
        remember: whether ``trusted_key`` is kept in ``root`` once it verified a bundle.

    Raises ``BundleError`` for a bundle that is not to be trusted, saying what to do.
    """
    keys = [load_public(trusted_key)] if trusted_key is not None else known_keys(root)
    if not keys and not allow_unsigned:
        raise BundleError(
            f"{path}: no key to verify it with; give the .pub file of whoever made it (once, then it is remembered), or, if you "
            "made it yourself, allow unsigned ones (--allow-unsigned)"
        )
    bundle = read_bundle(path, keys or None, allow_unsigned=allow_unsigned)
    if trusted_key is not None and remember and root is not None and bundle.signed_by is not None:
        kept = root / _FOLDER / f"{bundle.signed_by}.pub"
        if not kept.exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(kept, keys[0].line + "\n")
    return bundle


def known_keys(root: Path | None) -> list[PublicKey]:
    """The keys that ``root`` remembers."""
    if root is None:
        return []
    return [load_public(path) for path in sorted((root / _FOLDER).glob("*.pub"))]
