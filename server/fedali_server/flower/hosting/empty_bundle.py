"""Flower's bundle of code without any code: what has to be in it for a run to be accepted.

Everybody makes the same bytes for the same settings of a run, so that a server can tell that a run brings nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping

CLIENT_APP = "fedali_server.flower.relay_app:app"  # installed at the site; our own nodes know theirs

_EMPTY = {str: '""', bool: "false", int: "0", float: "0.0", bytes: '""'}


def empty_bundle(config: Mapping[str, str | bool | int | float | bytes]) -> bytes:
    """The bundle for a run with these settings, as a zip file.

    >>> empty_bundle({"seed": 1, "name": "a"}) == empty_bundle({"name": "b", "seed": 2})
    True
    """
    lines = [
        "[project]",
        'name = "fedali"',
        'version = "1.0.0"',
        "[tool.flwr.app]",
        'publisher = "fedali"',
        "[tool.flwr.app.components]",
        'serverapp = "installed:app"',
        f'clientapp = "{CLIENT_APP}"',
        "[tool.flwr.app.config]",
        *(f"{json.dumps(key)} = {_EMPTY[type(config[key])]}" for key in sorted(config)),
    ]
    text = ("\n".join(lines) + "\n").encode()
    content = f"pyproject.toml,{hashlib.sha256(text).hexdigest()},{8 * len(text)}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("pyproject.toml", text), (".info/CONTENT", content)):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # the same on every system
            archive.writestr(entry, data)
    return buffer.getvalue()
