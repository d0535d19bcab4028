"""What the folder of a run says about clients on other machines: which SuperLink leads to them, and the run's name."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from fedali.errors import CheckpointError, SettingsError
from fedali.support.files import write_text
from fedali_server.flower.link import Link

_FILE = "machines.json"
_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class RemoteSites:
    """Where the clients of a run are.

    Args:
        link: to the SuperLink that the sites have joined.
        study: a name that no other run has; sites keep their clients' state under it.
    """

    link: Link
    study: str = field(default_factory=lambda: secrets.token_hex(16))

    def write(self, folder: Path) -> None:
        """Note it in the folder of a run."""
        certificates = self.link.root_certificates
        facts = {
            "study": self.study,
            "superlink": self.link.address,
            "root_certificates": None if certificates is None else str(certificates.absolute()),
        }
        write_text(folder / _FILE, json.dumps(facts, indent=1))


def find_remote_sites(folder: Path, link: Link | None = None) -> RemoteSites | None:
    """What ``write`` noted, with another ``link`` if one is given; None for a run whose clients are in its folder.

    Raises ``SettingsError`` when a link is given for such a run, ``CheckpointError`` when the file is broken.
    """
    path = folder / _FILE
    if not path.exists():
        if link is not None:
            raise SettingsError(
                f"the clients of {folder} are in that folder: continue it without --superlink, or start anew with --out"
            )
        return None
    try:
        facts = json.loads(path.read_text("utf-8"))
        certificates = facts["root_certificates"]
        study, address = str(facts["study"]), str(facts["superlink"])
        if not is_name(study):
            raise ValueError("study is no name")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    return RemoteSites(link or Link(address, Path(certificates) if certificates else None), study)


def is_name(study: str) -> bool:
    """Whether ``study`` may be the name of a run, and so of a folder."""
    return _NAME.fullmatch(study) is not None
