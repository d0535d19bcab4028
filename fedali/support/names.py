"""Names that people give to clients, methods and scenarios, as names of files: another name is another file, always."""

from __future__ import annotations

import hashlib
import re

_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]*(\.[0-9][a-z0-9_-]*)*")
_LONGEST, _SHOWN = 80, 40  # characters of a file's name, and of what it shows of a name that is none


def file_name(name: str) -> str:
    """``name`` as a file's or a folder's: itself where every file system keeps it apart from others, else a part of it and a hash.

    Lower-case ASCII letters, digits, ``_``, ``-`` and a dot before a digit stay as they are; a file's ending is not one.

    >>> file_name("fedali-0.5")
    'fedali-0.5'
    >>> file_name("Ann/Lee")
    'ann_lee=19c5fce426132f67'
    """
    if len(name) <= _LONGEST and _PLAIN.fullmatch(name):
        return name
    shown = re.sub(r"[^a-z0-9_-]+", "_", name.lower())[:_SHOWN].strip("_-")
    return f"{shown}={hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def file_name_before(name: str) -> str:
    """What FedAli 0.1.0 made of a name, where different names could share a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "_"
