"""The first lines of a scenario: what reads some data, to be pasted into a file and run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomllib

from fedali_simulations.scenario import PartitionSettings

_ESCAPED = re.compile(r"[^\x20-\x7e\n]")
_MINIMUM = PartitionSettings().minimum
_UNSHOWN = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def beginning(
    settings: Mapping[str, Any], shape: Sequence[int], *, overlap: bool, clients: Sequence[int]
) -> dict[str, Any]:
    """``settings`` of a scenario, and what else it needs for its data to train.

    Args:
        settings: those that are set.
        shape: of a sample, which says what model can take it.
        overlap: whether samples are windows that may overlap.
        clients: samples of each; one alone has to be divided.
    """
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    if len(shape) != 2:
        found["model"] = {"name": "cnn2d" if len(shape) == 3 else "mlp"} | found.get("model", {})
    if not overlap:
        found["split"] = {"order": "random"} | found.get("split", {})
    if len(clients) < 2:
        least = {"minimum": 3} if sum(clients) < 8 * _MINIMUM else {}
        found["partition"] = {"kind": "dirichlet", "clients": 4} | least | found.get("partition", {})
    return found


def to_text(settings: Mapping[str, Any], *, ascii_alone: bool = False) -> str:
    r"""``settings`` as TOML that a terminal shows as it is, and that ``load_scenario`` reads back; "" where text in them is no Unicode.

    >>> print(to_text({"data": {"source": "a b.csv", "columns": {"client": "Zo\xeb", "channels": ["x"]}}}, ascii_alone=True))
    [data]
    source = "a b.csv"
    columns = {client = "Zo\u00eb", channels = ["x"]}
    """
    import tomlkit

    document = tomlkit.document()
    for key, value in sorted(settings.items(), key=lambda item: isinstance(item[1], Mapping)):
        document.add(key, _item(value) if isinstance(value, Mapping) else value)
    text = (_ESCAPED if ascii_alone else _UNSHOWN).sub(_escape, tomlkit.dumps(document).strip())
    try:
        text.encode("utf-8")
        return text if tomllib.loads(text) == settings else ""
    except (UnicodeError, tomllib.TOMLDecodeError):
        return ""


def _item(settings: Mapping[str, Any]) -> Any:
    """A table whose own tables stand on a line each."""
    import tomlkit

    table = tomlkit.table()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            inline = tomlkit.inline_table()
            inline.update(value)
            table.add(name, inline)
        else:
            table.add(name, value)
    return table


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
