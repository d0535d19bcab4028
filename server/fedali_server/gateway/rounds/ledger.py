"""What of each device counted last, kept beyond its round: a device that missed the answer may ask long after.

What an encoding lost is owed from the moment that an update counted, so a device has to learn whether it did, even if it
was killed before it heard so and comes back rounds later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from fedali.support.files import flush_folder, write_text

log = structlog.get_logger("fedali.gateway")


class Counted(NamedTuple):
    """A device's update of a training.

    Args:
        task: its id.
        sha256: of the update, in hex.
        size: of the update, bytes.
    """

    task: str
    sha256: str
    size: int


class Ledger:
    """The latest update of each device, by its number, that counted in a round that is no longer kept, in a file at ``path``.

    A file that cannot be read is set aside with a line in the log: a device then hears that its update was late.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counted: dict[int, Counted] = {}
        try:
            for number, task, sha256, size in json.loads(path.read_text("utf-8")):
                self._counted[int(number)] = Counted(str(task), str(sha256), int(size))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:
            log.error("what counted before is lost: its file cannot be read", file=str(path), why=str(error))

    def find(self, task: str, number: int) -> Counted | None:
        """The update of device ``number`` that counted for ``task``; callable from any thread."""
        found = self._counted.get(number)
        return found if found is not None and found.task == task else None

    def add(self, counted: Mapping[int, Counted]) -> None:
        """Put updates in the place of those devices' earlier ones. On disk on return; ``FedaliError`` when it is full."""
        if not counted:
            return
        latest = dict(sorted({**self._counted, **counted}.items()))
        write_text(self._path, json.dumps([[number, *one] for number, one in latest.items()]) + "\n")
        flush_folder(self._path.parent)
        self._counted = latest
