"""What methods were called in files that versions before 0.3.0 wrote: ``fedali`` was the paper's, which is ``fedali-paper`` now.

A run's folder means what it meant when it began, and goes on with the same bits. A scenario of a user's own means what names mean now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WRITTEN_BY = "fedali"
"""Key of a scenario that FedAli wrote: by which version. There was none before 0.3.0."""

_NOW = {"fedali": "fedali-paper"}
_IN_HASHES = {"fedali-paper": "fedali", "fedali": "fedali of 0.3.0"}
_FOUND = re.compile(r"# Settings of .*, found by fedali tune \(FedAli ")
_BESIDE = ("environment.json", "federation.json")  # a run's scenario.toml


def is_stored(path: Path, text: str) -> bool:
    """Whether a scenario's file is a run's own, or what `fedali tune` found, rather than one that a user wrote."""
    beside = path.name == "scenario.toml" and any((path.parent / name).exists() for name in _BESIDE)
    return beside or _FOUND.match(text) is not None


def as_called_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a scenario that a version before 0.3.0 stored, with its methods' names of now under the labels that they had."""
    given = settings.get("methods", ["fedali"])
    lines = given if isinstance(given, list) else [given]
    return {**settings, "methods": [_line(line) for line in lines]}


def in_hashes(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the table as a job's hash has it: the paper's method as it was called before, and no other as that."""
    base, plus, answer = line["name"].partition("+")
    if base not in _IN_HASHES:
        return line
    name = f"{_IN_HASHES[base]}{plus}{answer}"
    return {**line, "name": name, "label": "" if line["label"] == name else line["label"]}


def _line(line: Any) -> Any:
    settings = {"name": line} if isinstance(line, str) else line
    name = settings.get("name") if isinstance(settings, Mapping) else None
    base, plus, answer = name.partition("+") if isinstance(name, str) else ("", "", "")
    if base not in _NOW:
        return line
    return {**settings, "name": f"{_NOW[base]}{plus}{answer}", "label": settings.get("label") or name}
